"""Clean sources into a new corpus folder with data/, excluded/, corpus.json and a card, complete or not at all.

    facts = prepare_corpus(DataArguments(train_file=["books"]), CorpusArguments(output_dir="corpora/books"))

The steps, in order: weight, normalization, per-document rules, exact duplicates, repeated paragraphs, near duplicates, near
duplicates across the split, sampling. Of duplicate documents the first is kept. Per-document steps run on all cores, and the
result does not depend on their number. Memory: the current batches, one file's text, the indexes of deduplication.py, and
24 bytes per document if a sample is taken.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import tinygpt_hf
from tinygpt_hf import storage
from tinygpt_hf.cards.render import corpus_card
from tinygpt_hf.curation.deduplication import NearDuplicates, check_datasketch
from tinygpt_hf.curation.documents import Cleaned, Cleaner, clean_documents
from tinygpt_hf.curation.filters import Rejection, TextStats, normalize
from tinygpt_hf.curation.language import check_languages
from tinygpt_hf.curation.shards import CorpusFiles, Draft
from tinygpt_hf.curation.statistics import Facts, unknown_characters
from tinygpt_hf.errors import UsageError, redacted
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.discovery import CORPUS, FORMAT
from tinygpt_hf.reading.split import FEW_DOCUMENTS, content_hash, is_held_out, repetitions
from tinygpt_hf.reading.turns import document_texts
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.tokenizing.chat_template import encode_texts, unplaced
from tinygpt_hf.tokenizing.tokenizer import load_tokenizer

TOKENIZED_AT_ONCE = 256  # documents
DATA_SETTINGS = (  # the settings of `data:` that determine the corpus
    "train_file", "validation_file", "dataset_name", "dataset_config_name", "dataset_split", "dataset_revision", "sources",
    "text_column", "encoding_errors", "document_separator", "max_train_samples", "validation_split", "validation_split_percentage",
)  # fmt: skip


def prepare_corpus(
    data: DataArguments,
    corpus: CorpusArguments,
    progress: Callable[[Facts], None] = lambda facts: None,
) -> dict:
    """Clean the training sources of `data` into `corpus.output_dir`; returns the content of corpus.json."""
    settings = _resolve(data, corpus)
    target = Path(corpus.output_dir)
    storage.sweep(target)  # first, so that files left by a killed run are not read as text
    text = Corpus(data, corpus.seed)
    # the files are listed before the new folder exists, since it may be inside a source folder
    origin_facts = {"sources": text.source_facts, "source_remarks": list(map(redacted, text.remarks))}
    tokenizer = load_tokenizer(corpus.tokenizer_name) if corpus.tokenizer_name else None
    with storage.new_folder(target) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        facts = Facts()
        output = Output(settings, folder, scratch, tokenizer, facts, data.validation_split_percentage)
        with contextlib.closing(Deduplicator(settings, scratch, data.validation_split_percentage)) as deduplicator:
            if text.validation:
                deduplicator.hold_out(sources.documents(text.validation))
            documents = clean_documents(_weighted(text.sources, facts, tokenizer), settings, data.num_proc)
            for number, cleaned in enumerate(documents):
                rejection = cleaned.rejection or deduplicator.compare(cleaned)
                if rejection:
                    output.drop(cleaned.document, cleaned.size, rejection)
                else:
                    output.add(cleaned)
                if number % 1000 == 999:
                    progress(facts)
            output.close(deduplicator)
        _check_not_empty(facts)
        scratch.rmdir()
        record = _record(folder, corpus, facts)
        record |= _comparison(data, settings, facts, deduplicator) | origin_facts
        record["settings"] = {
            "corpus": {n: v for n, v in asdict(settings).items() if n != "output_dir"},
            "data": {n: v for n, v in asdict(data).items() if n in DATA_SETTINGS},
        }
        if tokenizer is not None:
            record["tokenizer"] = {
                "name": corpus.tokenizer_name,
                "vocabulary": len(tokenizer),
                "tokens_per_byte": round(facts.tokens / max(1, facts.kept_bytes), 4),
                "unknown_characters": unknown_characters(tokenizer, facts.kept_characters),
            }
        record = redacted(record)
        storage.write_json(folder / CORPUS, record)
        storage.write_file(folder / "README.md", corpus_card(record))
    return record


def _resolve(data: DataArguments, corpus: CorpusArguments) -> CorpusArguments:
    """Check all settings before anything is read; returns the corpus settings with the preset applied."""
    check_settings(data, corpus)
    settings = corpus.resolved()
    if not corpus.output_dir:
        raise UsageError("there is no --output_dir", "a new folder", "try --output_dir corpora/mine")
    if Path(corpus.output_dir).exists():
        raise UsageError(f"{corpus.output_dir} exists", "a new folder", "choose another --output_dir")
    if settings.near_duplicates != "off":
        check_datasketch()
    check_languages(settings.languages)
    return settings


def _weighted(origins: list[sources.Source], facts: Facts, tokenizer) -> Iterator[tuple[dict, int]]:
    """Yield (document, number of copies by its source's weight), and count the documents read.

    Documents rejected here are passed on with the reason, so that excluded/ keeps the order of the sources.
    """
    for source in origins:
        for document in sources.documents(source, keep_broken=True):
            copies = repetitions(document, source.weight)
            document = {**document, "origin": redacted(document["origin"])}
            if not copies:
                document["rejection"] = Rejection("weight", "left out by its source's weight")
            elif "broken" in document:
                document["rejection"] = Rejection(document["rule"], document["broken"])
            elif "messages" in document and (lost := unplaced(document, tokenizer)):
                document["rejection"] = Rejection(lost.rule, lost.problem)
            facts.count_read(document)
            yield document, copies


class Deduplicator:
    """A comparison of documents with earlier and with held-out ones."""

    def __init__(self, settings: CorpusArguments, scratch: Path, percentage: float):
        self._settings, self._scratch, self._percentage = settings, scratch, percentage
        self._first: dict[int, int] = {}  # text hash -> number of the first document
        self._origins: list[str] = []  # by document number
        self._held_out = bytearray()  # by document number: 1 if held out
        self._paragraphs: set[int] = set()  # paragraph hashes
        self._near = None
        if settings.near_duplicates != "off":
            self._near = NearDuplicates(settings.near_duplicate_threshold, scratch)
        self.num_validation = 0  # documents of validation files, numbered first
        self.near_duplicates = 0  # only counted if `near_duplicates` is count

    def hold_out(self, documents: Iterable[dict]) -> None:
        """Add the documents of validation files, so that training documents equal or similar to them are dropped."""
        cleaner = Cleaner(self._settings)
        for document in documents:
            normalized, changes = normalize(document, self._settings)
            self._add(cleaner.describe(normalized, changes, TextStats(normalized)), held_out=True)
        self.num_validation = len(self._origins)

    def compare(self, cleaned: Cleaned) -> Rejection | None:
        """Return a rejection if the document repeats an earlier one; otherwise add it and return None."""
        s = self._settings
        if s.exact_duplicates and cleaned.key in self._first:
            return Rejection("exact_duplicate", f"same text as {self._origins[self._first[cleaned.key]]}")
        if s.max_seen_paragraphs is not None and s.max_seen_paragraphs < 1:
            repeated = sum(length for key, length in cleaned.paragraphs if key in self._paragraphs)
            share = repeated / max(cleaned.length, 1)
            if share > s.max_seen_paragraphs:
                return Rejection("seen_paragraphs", f"{share:.3g} of it in paragraphs of earlier documents")
        if self._near is not None:
            match = next(self._near.matches(cleaned.shingles, cleaned.signature), None)
            if match and s.near_duplicates == "drop":
                return Rejection("near_duplicate", f"{match[1]:.3g} in common with {self._origins[match[0]]}")
            self.near_duplicates += match is not None
        self._add(cleaned, not self.num_validation and is_held_out(cleaned.document, self._percentage))
        return None

    def _add(self, cleaned: Cleaned, held_out: bool) -> None:
        self._first.setdefault(cleaned.key, len(self._origins))
        self._origins.append(cleaned.document["origin"])
        self._held_out.append(held_out)
        self._paragraphs.update(key for key, _ in cleaned.paragraphs)
        if self._near is not None:
            self._near.add(cleaned.shingles, cleaned.signature)

    def leaks(self, among: Collection[int] | None = None) -> dict[int, Rejection]:
        """Return the training documents (of `among`, if given) that nearly equal a held-out one, by number."""
        if self._near is None:
            return {}
        first = self.num_validation  # number of the first training document
        numbers = range(len(self._origins) - first) if among is None else sorted(among)
        training: list[int] = []
        held_out = [*range(first)]
        for number in numbers:
            (held_out if self._held_out[first + number] else training).append(first + number)
        return {
            number - first: Rejection(
                "near_duplicate", f"{similarity:.3g} in common with {self._origins[other]}, which is held out"
            )
            for number, (other, similarity) in self._near.across(held_out, training).items()
        }

    def close(self) -> None:
        if self._near is not None:
            self._near.close()
            (self._scratch / "shingles").unlink()


class Output:
    """A writer of kept and excluded documents.

    With sampling, or deduplication across the split, documents are first written to a draft until all are known.
    """

    def __init__(
        self, settings: CorpusArguments, folder: Path, scratch: Path, tokenizer, facts: Facts, percentage: float
    ):
        self._settings, self._tokenizer, self._facts, self._percentage = settings, tokenizer, facts, percentage
        self._files = CorpusFiles(folder, settings.output_format, settings.shard_megabytes * 10**6)
        limits = {n: getattr(settings, f"sample_{n}") for n in ("documents", "bytes", "tokens")}
        self._unit, self._limit = next(((n, v) for n, v in limits.items() if v), (None, 0))
        self._draft = Draft(scratch) if self._unit or settings.near_duplicates == "drop" else None
        self._order: list[tuple[float, int, int]] = []  # (hash, number, amount in the sample's unit)
        self._pending: list[Cleaned] = []
        facts.tokens = 0 if tokenizer is not None else None

    def drop(self, document: dict, size: int, rejection: Rejection) -> None:
        self._facts.count_dropped(rejection.rule, size)
        self._files.exclude(document, rejection)

    def add(self, cleaned: Cleaned) -> None:
        self._pending.append(cleaned)
        if len(self._pending) == TOKENIZED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        for cleaned, tokens in zip(self._pending, self._count_tokens(), strict=True):
            if self._draft is None:
                self._write(cleaned, tokens)
                continue
            if self._unit:
                amount = {"documents": 1, "bytes": cleaned.size, "tokens": tokens}[self._unit] * cleaned.copies
                hashed = content_hash(cleaned.document, f"sample {self._settings.seed}")
                self._order.append((hashed, len(self._order), amount))
            names = ("document", "copies", "size", "changes", "language", "characters")
            self._draft.write({name: getattr(cleaned, name) for name in names} | {"tokens": tokens})
        self._pending = []

    def _count_tokens(self) -> list[int]:
        if self._tokenizer is None:
            return [0] * len(self._pending)
        texts = [document_texts(cleaned.document) for cleaned in self._pending]
        ids = iter(encode_texts(self._tokenizer, [text for part in texts for text in part]))
        return [sum(len(next(ids)) for _ in part) for part in texts]

    def _write(self, cleaned: Cleaned, tokens: int) -> None:
        for _ in range(cleaned.copies):
            self._files.keep(cleaned.document, cleaned.size)
        self._facts.held_out += is_held_out(cleaned.document, self._percentage) * cleaned.copies
        self._facts.count_kept(cleaned)
        if self._tokenizer is not None:
            self._facts.tokens += tokens * cleaned.copies

    def close(self, deduplicator: Deduplicator) -> None:
        """Write the draft, without documents that leak across the split or are outside the sample."""
        self._flush()
        near = self._settings.near_duplicates
        # leaks are removed before sampling, so that a larger sample contains the smaller one
        leaks = deduplicator.leaks() if near == "drop" else {}
        sample = self._sample(leaks) if self._unit else None
        if near == "count":
            self._facts.leaked = len(deduplicator.leaks(sample))
        self._facts.leaks_dropped = len(leaks)
        for number, row in enumerate(self._draft.read() if self._draft else ()):
            tokens = row.pop("tokens")
            cleaned = Cleaned(**row)
            if number in leaks:
                self.drop(cleaned.document, cleaned.size, leaks[number])
            elif sample is None or number in sample:
                self._write(cleaned, tokens)
            else:
                self.drop(cleaned.document, cleaned.size, Rejection("sample", "not in the sample"))
        self._files.close()

    def _sample(self, without: Collection[int]) -> set[int]:
        """Choose the documents with the lowest hashes, up to the first that does not fit; skipping it would favor short ones."""
        sample, left = set(), self._limit
        for _, number, amount in sorted(self._order):
            if number in without:
                continue
            if amount > left:
                break
            sample.add(number)
            left -= amount
        return sample


def _check_not_empty(facts: Facts) -> None:
    if not facts.read:
        raise UsageError("the sources hold no documents", "at least one", "name files that hold some")
    if not facts.kept:
        dropped = sorted(facts.dropped.items(), key=lambda entry: -entry[1][0])
        words = ", ".join(f"{rule} dropped {number}" for rule, (number, _) in dropped)
        raise UsageError(
            f"of {facts.read} documents none are left ({words})",
            "at least one",
            "loosen that rule, or choose another --preset",
        )


def _record(folder: Path, corpus: CorpusArguments, facts: Facts) -> dict:
    """Return the part of corpus.json that describes the files and their documents."""
    return {
        "format": FORMAT,
        "tinygpt_hf": tinygpt_hf.__version__,
        "name": Path(corpus.output_dir).name,
        "license": corpus.license,
        "rights": corpus.rights,
        "language": corpus.language or (corpus.languages if corpus.min_language_score else []),
        **facts.as_json(),
        "files": {
            str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": storage.file_hash(path)}
            for path in sorted(folder.rglob("*.*"))
        },
    }


def _comparison(data: DataArguments, settings: CorpusArguments, facts: Facts, deduplicator: Deduplicator) -> dict:
    """Return the part of corpus.json about deduplication, the split, and leakage between its sides."""
    few = facts.texts_only and facts.written < FEW_DOCUMENTS
    if data.validation_file:
        split, held_out = "validation files", deduplicator.num_validation
    elif (data.validation_split or ("tail" if few else "hash")) == "tail":
        split, held_out = "tail of each text", facts.kept
    else:
        split, held_out = "hash of each document", facts.held_out
    near: dict = {"setting": settings.near_duplicates, "threshold": settings.near_duplicate_threshold}
    why_not = None
    if settings.near_duplicates == "off":
        why_not = "`--near_duplicates off`"
    else:
        import datasketch

        near["datasketch"] = datasketch.__version__
        if split == "tail of each text":
            why_not = split
        elif not held_out:
            why_not = "nothing is held out"
    return {
        "duplicates": near,
        "split": {"by": split, "percentage": data.validation_split_percentage, "held_out": held_out},
        "leakage": {
            "documents": facts.leaked if why_not is None else None,
            "why_not_measured": why_not,
            "dropped": facts.leaks_dropped,
            "near_duplicates_kept": deduplicator.near_duplicates if settings.near_duplicates == "count" else None,
        },
    }
