"""Clean text with datatrove, for corpora that are too large for `tinygpt prepare-corpus`: here, or on a Slurm cluster.

    python -m venv cleaning     # an environment of its own: nothing here is needed to train
    cleaning/bin/pip install datatrove==0.10.1 pyarrow orjson spacy regex tokenizers 'xxhash<4'
    cleaning/bin/python examples/datatrove_clean.py texts --output_dir cleaned
    tinygpt tokenize --train_file cleaned --vocab_size 4096 --output_dir runs/rows

On a cluster, with all folders on a disk that every node sees (--tasks: at most as many as there are files):

    cleaning/bin/python examples/datatrove_clean.py /data/texts --output_dir /data/cleaned --tasks 2000 \\
        --slurm --partition cpu --time 20:00:00 --env_command 'source /data/cleaning/bin/activate'

Reads every .jsonl, .parquet (column `text`) and .txt (one document) below a folder. Documents pass the filters of Gopher and of
FineWeb, then MinHash with FineWeb's numbers: 14 buckets of 8 hashes of 5 words in a row, one document of each cluster stays. The
output is parquet with the columns `text` and `origin`; what was dropped lies in OUTPUT_DIR.work/excluded with the reason. A task
that is done is not done again: after a kill the same command goes on. For other settings take another folder.
"""

import argparse
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from datatrove.io import get_datafolder
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.readers.base import BaseDiskReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter


class TextReader(BaseDiskReader):
    """A .txt file is one document."""

    name = "Text"

    def read_file(self, filepath: str):
        with self.data_folder.open(filepath, "r", encoding="utf-8", newline="") as file:
            document = self.get_document_from_dict({"text": file.read()}, filepath, 0)
        if document:
            yield document


READERS = {".jsonl": JsonlReader, ".jsonl.gz": JsonlReader, ".parquet": ParquetReader, ".txt": TextReader}


def readers(folder: str, column: str) -> list:
    """One reader for each kind of file below the folder."""
    names = get_datafolder(folder).list_files()
    found = [ending for ending in READERS if any(name.endswith(ending) for name in names)]
    if not found:
        raise SystemExit(f"{folder} holds no file that ends in {', '.join(READERS)}")
    return [READERS[ending](folder, glob_pattern=f"**/*{ending}", text_key=column) for ending in found]


def text_and_origin(writer, document: Document) -> dict:
    """Return a row of the output: `tinygpt` reads `text`; `origin` names the file and the row it came from."""
    return {"text": document.text, "origin": document.id}


def steps(wanted: argparse.Namespace) -> list[tuple[str, list, int]]:
    """(name, pipeline, tasks) of everything to be done, each after the one before."""
    work, language = f"{wanted.output_dir}.work", wanted.language
    config = MinhashConfig()
    dropped = lambda name: JsonlWriter(f"{work}/excluded/{name}")  # noqa: E731
    filters = [
        GopherRepetitionFilter(exclusion_writer=dropped("gopher_repetition"), language=language),
        GopherQualityFilter(exclusion_writer=dropped("gopher_quality"), language=language),
        FineWebQualityFilter(exclusion_writer=dropped("fineweb_quality"), language=language),
    ]
    # The tasks number the documents they read: both that read the filtered text must be as many, and as many as wrote it.
    filtered = JsonlReader(f"{work}/filtered")
    signatures = MinhashDedupSignature(f"{work}/signatures", config, language)
    buckets = MinhashDedupBuckets(f"{work}/signatures", f"{work}/pairs", config=config)
    clusters = MinhashDedupCluster(f"{work}/pairs", f"{work}/remove", config)
    unique = MinhashDedupFilter(f"{work}/remove", exclusion_writer=dropped("near_duplicate"))
    output = ParquetWriter(wanted.output_dir, adapter=text_and_origin)
    return [
        (
            "filter",
            [*readers(wanted.folder, wanted.text_column), *filters, JsonlWriter(f"{work}/filtered")],
            wanted.tasks,
        ),
        ("signatures", [filtered, signatures], wanted.tasks),
        ("buckets", [buckets], config.num_buckets),
        ("clusters", [clusters], 1),  # in the memory of one machine: the pairs that were found, not the documents
        ("unique", [filtered, unique, output], wanted.tasks),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="text: .jsonl, .jsonl.gz, .parquet, .txt")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--language", default="eng", help="whose words; three letters of ISO 639-3")
    parser.add_argument("--tasks", type=int, default=2, help="parts of the work; at most as many as there are files")
    parser.add_argument("--workers", type=int, default=-1, help="tasks at a time; -1: all")
    parser.add_argument("--slurm", action="store_true", help="as arrays of jobs, each step after the one before")
    parser.add_argument("--partition", default="cpu")
    parser.add_argument("--time", default="20:00:00", help="of one task")
    parser.add_argument("--mem_per_cpu_gb", type=int, default=4)
    parser.add_argument("--env_command", help="what a job runs first, e.g. 'source /data/cleaning/bin/activate'")
    wanted = parser.parse_args()
    wanted.output_dir = str(Path(wanted.output_dir).absolute())  # a job may start elsewhere
    wanted.folder = str(Path(wanted.folder).absolute())
    last = None
    for name, pipeline, tasks in steps(wanted):
        common = {
            "pipeline": pipeline,
            "tasks": tasks,
            "workers": wanted.workers,
            "logging_dir": f"{wanted.output_dir}.work/logs/{name}",
            "depends": last,
        }
        if wanted.slurm:
            last = SlurmPipelineExecutor(
                **common,
                job_name=f"clean-{name}",
                partition=wanted.partition,
                time=wanted.time,
                mem_per_cpu_gb=wanted.mem_per_cpu_gb,
                env_command=wanted.env_command,
                qos=None,
            )
        else:
            last = LocalPipelineExecutor(**common)
    last.run()  # and those it depends on before


if __name__ == "__main__":
    main()
