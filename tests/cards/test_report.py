"""Test the report: its numbers are those of the files and the model, it loads nothing, and its failure never fails a run."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments, load, train
from tinygpt_hf.cards import report as reports
from tinygpt_hf.cards.report import measure_loss_map
from tinygpt_hf.cli import main
from tinygpt_hf.evaluation.compare import paired
from tinygpt_hf.hub.upload_set import collect_files
from tinygpt_hf.inspection.loss_map import loss_map, token_kind
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.rows.build import prepare_rows
from tinygpt_hf.rows.store import IGNORED, Rows
from tinygpt_hf.rows.view import RowView
from tinygpt_hf.training.probe import peaks

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
HOSTILE = "<img src=x onerror=alert(1)></section>{{7*7}}"


def run(folder, **training):
    return train(
        ModelArguments(**SHAPE),
        DataArguments(dataset_name="toyland", max_train_samples=120, block_size=64, validation_split_percentage=10),
        TokenizerArguments(tokenizer_type="byte"),
        TrainingArguments(
            str(folder), max_steps=6, logging_steps=1, eval_steps=3, sample_tokens=4, device="cpu", **training
        ),
        quiet=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train two runs on one text, whole/ and slow/, with different learning rates."""
    home = tmp_path_factory.mktemp("runs")
    run(home / "whole", sample_prompts=[HOSTILE])
    run(home / "slow", learning_rate=1e-4)
    return home


class Page(HTMLParser):
    """A parser that collects the text and the tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, text):
        self.text += f"{text} "


def test_a_finished_run_has_its_report(runs):
    source = (runs / "whole" / "report.html").read_text()
    page, facts = Page(source), json.loads((runs / "whole" / "run.json").read_text())
    result, lines = facts["result"], [json.loads(line) for line in (runs / "whole" / "log.jsonl").open()]
    assert f"{result['eval_loss']:.4f} nats per token" in page.text and "step 6, finished" in page.text
    assert f"{result['parameters']:,}" in page.text and facts["data"] in page.text and facts["tokenizer"] in page.text
    assert HOSTILE in page.text and not {"img", "script", "link"} & set(page.tags)
    assert not re.search(r"(?:src|href)=\"|url\(", source) and len(source) < 1_000_000
    assert "training.sample_prompts" in page.text and "data.block_size" in page.text
    pictures = re.findall(r"<svg .*?</svg>", source, re.S)
    assert len(pictures) == source.count("<svg ") == 6
    assert all(ElementTree.fromstring(picture) for picture in pictures)
    shown = [line["samples"][0]["text"] for line in lines if line.get("samples")]
    assert len(shown) == 2 and all(text.strip() in page.text for text in shown)
    assert (
        f"{lines[-1]['eval_entropy']:.2f} bits per token" in page.text
        and facts["hardware"]["peak_memory_bytes"] > 2**20
    )


def test_the_loss_map_equals_a_direct_computation(runs):
    found = measure_loss_map(runs / "whole")
    model, _ = load(runs / "whole")
    rows = Rows(runs / "whole" / "rows" / "validation")
    view = RowView(rows, 64)
    ids, labels = view.batch(range(len(view)))
    with torch.no_grad():
        logs = model(torch.from_numpy(ids)).logits.double().log_softmax(-1)
    bits = -logs.gather(2, torch.from_numpy(labels).clamp_min(0)[..., None])[..., 0].numpy() / np.log(2)
    counted = labels != IGNORED
    assert found.tokens == counted.sum() == rows.num_targets
    assert found.bits == pytest.approx(bits[counted].mean(), rel=1e-5)
    assert [group.name for group in found.by_position] == [
        "1",
        "2 to 3",
        "4 to 7",
        "8 to 15",
        "16 to 31",
        "32 to 63",
        "64",
    ]
    assert found.by_position[2].bits == pytest.approx(bits[:, 3:7][counted[:, 3:7]].mean(), rel=1e-5)
    for groups in (found.by_position, found.by_kind):
        assert sum(group.tokens for group in groups) == found.tokens
        assert sum(group.tokens * group.bits for group in groups) == pytest.approx(bits[counted].sum(), rel=1e-5)
    nats = sum(nats for nats, _ in found.documents.values())
    assert len(found.documents) == rows.num_documents and nats == pytest.approx(
        bits[counted].sum() * np.log(2), rel=1e-5
    )
    assert sum(size for _, size in found.documents.values()) == rows.num_bytes - 1  # the first of all follows nothing
    assert found.hard_documents[0].bits >= found.hard_documents[-1].bits >= found.easy_documents[0].bits
    hardest, expected = found.passages["surprising"][0], found.passages["expected"][0]
    assert hardest.bits > found.bits > expected.bits and hardest.bits == pytest.approx(
        np.mean([b for _, b in hardest.tokens])
    )


def test_of_a_mixture_the_first_rows_of_each_source_are_read(tiny_folder, tmp_path):
    model, tokenizer = load(tiny_folder)
    for name, count in (("one", 900), ("two", 300)):
        texts = [{"text": f"{name} story of Pip {k}"} for k in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    sources = [{"train_file": str(tmp_path / f"{name}.jsonl")} for name in ("one", "two")]
    data = DataArguments(sources=sources, block_size=16, validation_split_percentage=30)
    rows = prepare_rows(Corpus(data), tokenizer, tmp_path / "rows").validation
    second = rows.sources[1][0]
    lengths = [len(rows.document(number)) for number in range(rows.num_documents)]
    whole = loss_map(model, tokenizer, RowView(rows, 16), 10**6).by_source
    assert [(group.name, group.tokens) for group in whole] == [
        ("one.jsonl", sum(lengths[:second]) - 1), ("two.jsonl", sum(lengths[second:]))
    ]  # fmt: skip
    part = loss_map(model, tokenizer, RowView(rows, 16), 320).by_source
    assert [group.name for group in part] == ["one.jsonl", "two.jsonl"] and all(130 < g.tokens < 190 for g in part)


@pytest.mark.parametrize(
    "token_bytes, shown, kind",
    [
        (b" dog", " dog", "words and their beginnings"), (b"ing", "ing", "inside words"), (b"", "<|x|>", "control tokens"),
        (b"\xe2\x98", "", "parts of characters"), (b"\n\n", "", "white space"), (b" 1990", "", "numbers"),
        (b'."', "", "punctuation"), (None, "▁the", "words and their beginnings"), ("雪".encode(), "雪", "inside words"),
    ],
)  # fmt: skip
def test_every_token_has_a_kind(token_bytes, shown, kind):
    assert token_kind(token_bytes, shown) == kind


def test_several_runs_are_overlaid_and_their_differences_named(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs / "whole"), str(runs / "slow"), "--output_file", "both.html"]) == 0
    assert capsys.readouterr().out == "The report: both.html\n"
    source = (tmp_path / "both.html").read_text()
    page = Page(source)
    assert "training.learning_rate" in page.text and "data.block_size" not in page.text
    assert "whole: line training" in page.text and "slow" in page.text
    assert source.count('stroke-dasharray="7 3"') == source.count("<svg ")


def test_two_runs_are_compared_on_the_documents_that_both_read(runs):
    a, b = (measure_loss_map(runs / name).documents for name in ("whole", "slow"))
    nats, sizes = [[cost for cost, _ in each.values()] for each in (a, b)], [size for _, size in a.values()]
    found, text = paired(*nats, sizes), " ".join(Page(reports.report([runs / "whole", runs / "slow"])).text.split())
    numbers = f"{found.difference:+.4f} {found.low:+.4f} to {found.high:+.4f}"
    assert f"whole - slow {numbers} {found.verdict.replace('A', 'whole').replace('B', 'slow')}" in text
    assert found.difference < 0  # the rate of slow/ is far too small


def test_a_killed_run_has_a_report(runs, tmp_path):
    died = tmp_path / "died"
    shutil.copytree(runs / "slow", died)
    facts = json.loads((died / "run.json").read_text())
    (died / "run.json").write_text(json.dumps(facts | {"finished": False, "result": None}))
    lines = (died / "log.jsonl").read_bytes().split(b"\n")
    (died / "log.jsonl").write_bytes(b"\n".join(lines[:5]) + b'\n{"step": 5, "lo')  # torn
    (died / "model.safetensors").unlink()
    shutil.rmtree(died / "rows")
    assert main(["report", str(died)]) == 0
    text = Page((died / "report.html").read_text()).text
    assert "not finished" in text and "Breakdown of the loss" not in text and "Loss" in text


def test_the_report_shows_the_plan_and_its_outcome(runs, tmp_path):
    shutil.copytree(runs / "slow", tmp_path / "planned")
    facts = json.loads((runs / "slow" / "run.json").read_text())
    facts["plan"] = {"seconds": 60, "memory_bytes": 2**20, "bits_per_byte": 2.0, "low": 1.5, "high": 2.5}
    facts["came_true"] = {"seconds": 71.2, "bits_per_byte": 2.25}
    (tmp_path / "planned" / "run.json").write_text(json.dumps(facts))
    text = " ".join(Page(reports.report([tmp_path / "planned"])).text.split())
    for words in ("time 0:01:00 0:01:11", "memory 1.0 MiB", "bits per byte 2.000 (1.500 to 2.500) 2.250"):
        assert words in text


def test_the_report_compares_speed_with_the_machine(runs, tmp_path):
    machine = SimpleNamespace(device=torch.device("cpu"), mixed_precision="no", num_processes=1)
    found = peaks(machine, seconds=60)
    assert found["peak_gflops"] > 0 and "peak_gflops" not in peaks(machine, seconds=1)
    shutil.copytree(runs / "slow", tmp_path / "long")
    facts = json.loads((runs / "slow" / "run.json").read_text())
    facts["hardware"] |= found
    (tmp_path / "long" / "run.json").write_text(json.dumps(facts))
    text = Page(reports.report([tmp_path / "long"])).text
    assert re.search(r"GFLOP/s, \d+% of the rate of large matrix products", text) and "peak memory" in text


def test_a_failing_report_does_not_fail_the_run(tmp_path, monkeypatch, capsys):
    def fails(folder):
        raise MemoryError("no room")

    monkeypatch.setattr(reports, "write_report", fails)
    assert run(tmp_path / "r").steps == 6
    assert (
        json.loads((tmp_path / "r" / "run.json").read_text())["finished"]
        and not (tmp_path / "r" / "report.html").exists()
    )
    monkeypatch.undo()
    assert run(tmp_path / "r").already_finished and (tmp_path / "r" / "report.html").exists()


def test_it_goes_to_the_hub_only_on_request(runs, tmp_path):
    sent, _ = collect_files(runs / "whole", "a/b", [], {})
    assert "report.html" in sent[0].left_out
    sent, _ = collect_files(runs / "whole", "a/b", ["report"], {})
    assert "report.html" in sent[0].files


@pytest.mark.parametrize(
    "words, said",
    [([], "no RUN is given"), (["nowhere"], "nowhere does not exist"), (["."], "is no run folder"),
     (["RUN", "--output_file", "."], "--output_file . is a folder"),
     (["RUN", "--output_file", "no/x.html"], "does not exist")],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(runs, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(str(runs / "slow") if word == "RUN" else word for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1 and not list(tmp_path.iterdir())
