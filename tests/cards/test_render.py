"""Test the cards: their numbers are the run's, no value can inject Markdown, and an edited README is kept."""

import inspect
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from random import Random

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from transformers import AutoTokenizer

from tinygpt_hf.cards.facts import CONFIG, LINE, NUMBER, RECORD, Run, describe_source
from tinygpt_hf.cards.render import LICENSES, block, count, is_generated, md, metadata, model_card, write_card
from tinygpt_hf.evaluation.baselines import baselines
from tinygpt_hf.evaluation.memorization import LENGTH
from tinygpt_hf.inference.generation import continue_prompts
from tinygpt_hf.rows.store import Rows
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.training import recipe
from tinygpt_hf.training import run as run_module

SETTINGS = {
    "max_steps": 6, "per_device_train_batch_size": 8, "mixed_precision": "no", "device": "cpu", "logging_steps": 1,
    "eval_steps": 3, "sample_tokens": 60, "license": "apache-2.0", "data_license": "public domain | <b>",
}  # fmt: skip
HOSTILE = "a`b ``|`` <script>alert(1)</script> ](http://x.y) ---\n---\nlicense: mit\n# head\n![i](z) \"q\" 'p' www.evil.com me@x.y"
HOSTILE_PARTS = [
    HOSTILE,
    "---\nlicense: mit\n---\n",
    "<script>",
    "](http://evil.com)",
    "a|b",
    "\r\n\r\n# x",
    "\u2028# x",
    "``",
]
SIGNS = "`|<>[]()#\n\r-&;!*_~$\\\"' {}%\u0085\u2028ab"
hostile_text = st.one_of(st.text(max_size=40), st.sampled_from(HOSTILE_PARTS), st.text(SIGNS, max_size=30))
HEADS = {"What it is", "How to use it", "Training text", "Training", "Results", "Samples", "Limits and intended use"}
HEADS |= {"Hardware and time", "Versions, and how to reproduce it"}


def run(folder: Path, text: Path, **training):
    return recipe.train(
        ModelArguments(hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
        DataArguments(train_file=[str(text)], block_size=96, validation_split="tail", validation_split_percentage=20),
        TokenizerArguments(tokenizer_type="byte"),
        TrainingArguments(output_dir=str(folder), **SETTINGS | training),
        quiet=True,
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory, tiny_text) -> Path:
    path = tmp_path_factory.mktemp("private-place") / "we`ird|<b>.txt"
    path.write_text(tiny_text * 12)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, text) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder, text)
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """Copy the small files of the run, for a test to change."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "run.yaml", "log.jsonl", "config.json", "tokenizer.json"):
        (folder / name).write_bytes((finished / name).read_bytes())
    return folder


def change(folder: Path, **values) -> None:
    """Change values of run.json."""
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | values))


def card(folder: Path) -> str:
    return model_card(Run(folder))


def parts(text: str) -> tuple[dict, str]:
    """Split a card into (metadata, body) as the Hub does."""
    match = re.match(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))", text)
    return yaml.safe_load(match[2]), text[match.end() :]


def tokens_of(body: str):
    """Parse the body with a Markdown parser that supports tables, raw HTML and automatic links; return flat tokens."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    flat = []
    for token in parser.parse(body):
        flat += [token, *(token.children or ())]
    return flat


def assert_inert(body: str) -> None:
    """Assert that the body has no HTML, link, image, heading or automatic link except those of the template."""
    tokens = tokens_of(body)
    html = [t.content for t in tokens if t.type in ("html_block", "html_inline")]
    allowed = r"<details>\n<summary>All other settings</summary>\n?|</details>\n?|<!-- tinygpt_hf made .*-->\n?"
    assert all(re.fullmatch(allowed, piece) for piece in html), html
    assert {t.attrs["href"] for t in tokens if t.type == "link_open"} <= {"https://pypi.org/project/tinygpt_hf/"}
    assert {t.attrs["src"] for t in tokens if t.type == "image"} <= {"loss_curve.svg"}
    heads = [tokens[k + 1].content for k, t in enumerate(tokens) if t.type == "heading_open"]
    assert set(heads[1:]) <= HEADS and len(heads) == len(set(heads))
    plain = " ".join(t.content for t in tokens if t.type == "text")
    assert not re.search(r"www\.|https?:|\w@\w|script|evil", plain)


# numbers are the run's


def test_the_front_matter_is_what_the_hub_reads(finished):
    text = (finished / "README.md").read_text()
    data, body = parts(text)
    assert (
        data == metadata(Run(finished)).to_dict() == ModelCard(text).data.to_dict() == ModelCardData(**data).to_dict()
    )
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "text-generation"
    assert "tinygpt" in data["tags"] and data["license"] == "apache-2.0"
    assert not {"language", "datasets", "base_model"} & set(data)
    (result,) = data["model-index"][0]["results"]
    facts = json.loads((finished / "run.json").read_text())["result"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    names = ("loss", "perplexity", "bits_per_byte")
    assert metrics == {name: pytest.approx(facts[f"eval_{name}"], abs=1e-4) for name in names}
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]), rel=1e-4)
    assert result["task"]["type"] == "text-generation" and result["dataset"]["type"] == "text"
    assert "we`ird|<b>.txt" in result["dataset"]["name"]
    assert_inert(body)


def test_the_body_tells_what_the_run_was(finished, text):
    body = parts((finished / "README.md").read_text())[1]
    facts, rows = json.loads((finished / "run.json").read_text()), Rows(finished / "rows" / "train")
    sample = Run(finished).evaluation["samples"][0]
    for words in (
        f"| parameters | {facts['result']['parameters']:,} |",
        "`Qwen3ForCausalLM`",
        f"training: {rows.num_documents} documents, {rows.num_tokens:,} tokens, {rows.num_bytes:,} bytes",
        "``we`ird|<b>.txt``",
        "not stated: find out before you publish",
        "`public domain | <b>`",
        *(f"`{name}` `{version}`" for name, version in facts["versions"].items()),
        "(temperature 0.8, top-k 50",
        "6 steps on",
        "seed 42",
        "energy was not measured",
        block(sample["text"]),
        block(sample["prompt"]),
    ):
        assert words in body
    assert "temperature=0.8, top_k=50" in inspect.getsource(continue_prompts)
    assert "max_steps: 6" in body.split("<details>")[0] and "optim: muon" in body.split("<details>")[1]
    assert str(text.parent) not in body and "private-place" not in body and str(finished) not in body


def test_the_code_of_the_card_runs(finished, capsys):
    body = parts((finished / "README.md").read_text())[1]
    snippet = re.search(r"```python\n(.*?)```", body, re.DOTALL)[1].replace("MODEL", str(finished))
    exec(snippet.replace("max_new_tokens=100", "max_new_tokens=3"), {})
    assert capsys.readouterr().out.startswith("Once upon a time")


def test_a_card_in_a_run_says_how_it_compares(finished):
    body, run_ = parts((finished / "README.md").read_text())[1], Run(finished)
    rows = Rows(finished / "rows" / "train"), Rows(finished / "rows" / "validation")
    expected = baselines(rows[0].tokens, rows[1].tokens, run_.config["vocab_size"], rows[1].num_bytes)
    assert {name: entry["loss"] for name, entry in run_.baselines.items()} == {b.name: b.loss for b in expected}
    for baseline in expected:
        assert f"| {baseline.loss:.4f} | {baseline.perplexity:,.2f} | {baseline.bits_per_byte:.4f} |" in body
    assert "worse than a trigram model" in body  # six steps
    picture = ElementTree.fromstring((finished / "loss_curve.svg").read_text())
    assert {b.name for b in expected} < {t.text for t in picture.iter()}
    assert sum(t.tag.endswith("circle") for t in picture.iter()) == 2


def test_the_run_counts_copies_of_its_last_samples(finished, copied):
    rows, tokenizer = Rows(finished / "rows" / "train"), AutoTokenizer.from_pretrained(finished)
    documents = [tokenizer.decode(rows.document(k), skip_special_tokens=True) for k in range(rows.num_documents)]
    written = [" ".join(sample["text"].split()) for sample in Run(finished).evaluation["samples"]]
    sequences = [text[k : k + LENGTH] for text in written for k in range(len(text) - LENGTH + 1)]
    copies = sum(any(sequence in " ".join(document.split()) for document in documents) for sequence in sequences)
    counts = json.loads((finished / "run.json").read_text())["copies"]
    assert (counts["sequences"], counts["copied"]) == (len(sequences), copies) and sequences
    assert f"{copies / len(sequences):.1%} of the {len(sequences)} sequences of 32 characters" in card(finished)
    change(copied, copies={**counts, "searched_tokens": 4, "tokens": 16})
    assert "25% of the text was searched" in card(copied)
    change(
        copied, copies={**counts, "longest": 47, "longest_span": "a `span` <b>word</b> for word, 47 characters of it"}
    )
    assert "has 47 characters: ``a `span` <b>word</b> for" in card(copied)


def test_a_number_is_shown_in_the_unit_it_rounds_to():
    numbers = [1_234_567, 999_817_216, 999_499_999, 999_960_000_000, 999_499]
    assert list(map(count, numbers)) == ["1.23 million", "1 billion", "999 million", "1 trillion", "999,499"]


def test_a_name_on_the_hub_is_used_and_kept_out_of_the_folder_name(copied):
    assert write_card(copied, "me/my-model")
    text = (copied / "README.md").read_text()
    assert "# me/my-model\n" in text and 'model="me/my-model"' in text and "tinygpt chat me/my-model" in text
    assert parts(text)[0]["model-index"][0]["name"] == "me/my-model" and "MODEL" not in text
    assert "MODEL" in card(copied)
    (copied / "hub.json").write_text(json.dumps({"pushed": {"me/my-model@main": {"commit": "c"}}}))
    assert card(copied) == text
    along = {f"me/my-model{what}@main": {} for what in ("", "-data", "-gguf")}
    (copied / "hub.json").write_text(json.dumps({"pushed": along}))
    assert card(copied) == text  # not the name of what went along
    (copied / "hub.json").write_text(json.dumps({"pushed": {"$(rm -rf /)/x@main": {}}}))
    assert "$(rm" not in card(copied)


# whose README it is


def test_a_readme_of_a_person_is_never_overwritten(copied, tmp_path):
    (copied / "README.md").write_text("# Mine\n")
    assert not write_card(copied) and (copied / "README.md").read_text() == "# Mine\n"
    (copied / "README.md").unlink()
    assert write_card(copied) and is_generated(copied)
    ours = (copied / "README.md").read_text()
    assert write_card(copied) and (copied / "README.md").read_text() == ours
    (copied / "README.md").write_text(ours.replace("## Results", "## My results"))
    assert not write_card(copied) and "## My results" in (copied / "README.md").read_text()
    other = tmp_path / "other.md"
    other.write_text(ours)
    (copied / "README.md").unlink()
    (copied / "README.md").symlink_to(other)
    assert not write_card(copied) and other.read_text() == ours


def test_a_card_is_not_replaced_by_one_that_knows_less_and_a_plain_model_gets_none(copied, tmp_path):
    write_card(copied)
    before = (copied / "README.md").read_text()
    (copied / "run.json").unlink()
    assert not write_card(copied) and (copied / "README.md").read_text() == before
    assert not write_card(tmp_path) and not (tmp_path / "README.md").exists()


def test_a_later_resume_writes_the_report_again_also_after_a_kill(tmp_path, text, monkeypatch):
    def killed(folder):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_card", killed)
        with pytest.raises(SystemExit):
            run(tmp_path / "r", text)
    assert not (tmp_path / "r" / "README.md").exists()
    for steps in (6, 8):
        run(tmp_path / "r", text, max_steps=steps)
        assert f"{steps} steps on" in (tmp_path / "r" / "README.md").read_text()


# values stay values


@settings(deadline=None)
@given(hostile_text)
def test_md_is_one_code_span_and_block_is_one_code_block(value):
    tokens = tokens_of(f"- before {md(value)} after")
    inline = [t for t in tokens if t.type in ("text", "code_inline")]
    assert [t.type for t in inline] == ["text", "code_inline", "text"] and inline[0].content == "before "
    kinds = [t.type for t in tokens_of(f"before\n\n{block(value)}\n\nafter")]
    assert kinds.count("fence") == 1 and "html_block" not in kinds
    assert kinds[-3:] == ["inline", "text", "paragraph_close"]


def filled(shape, words: list[str], rng: Random):
    """Draw a value for every name in the shape, with strings from `words`; one in twelve has another type."""
    if rng.random() < 1 / 12:
        return rng.choice([None, True, -1, 0.5, math.inf, math.nan, 10**400, [], {}, [{}], {"a": [1]}, *words])
    if isinstance(shape, dict):
        names = {rng.choice(words) if name is str else name: inner for name, inner in shape.items()}
        return {name: filled(inner, words, rng) for name, inner in names.items()}
    if isinstance(shape, list):
        return [filled(shape[0], words, rng)]
    return rng.choice({NUMBER: [0, 1, 3.5, 10**9], bool: [True, False]}.get(shape, words))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(hostile_text, min_size=1, max_size=12), st.integers(0, 10**6))
def test_no_value_of_a_run_becomes_anything_else(copied, words, seed):
    rng = Random(seed)
    for name, shape in (("run.json", RECORD), ("config.json", CONFIG), ("log.jsonl", LINE)):
        (copied / name).write_text(json.dumps(filled(shape, words, rng)) + "\n")
    data, body = parts(card(copied))
    assert data == metadata(Run(copied)).to_dict() and data["license"] == "apache-2.0"
    known = "language license library_name pipeline_tag tags datasets base_model metrics model-index"
    assert set(data) <= set(known.split())
    assert_inert(body)
    body.encode()


@pytest.mark.parametrize("settings_of_it", [HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}, 5, None])
def test_hostile_settings_and_folder_names_too(copied, settings_of_it):
    names = {"data": "train_file sources", "training": "license language seed data_license hub_model_id"}
    given = {section: dict.fromkeys(words.split(), settings_of_it) for section, words in names.items()}
    (copied / "run.yaml").write_text(yaml.safe_dump(given | {"model": settings_of_it}))
    folder = copied.rename(copied.with_name("we`ird <script> ](x.y)"))
    data, body = parts(card(folder))
    assert "license" not in data and "language" not in data and data["model-index"][0]["name"] == folder.name
    assert_inert(body)
    heading = next(t for t in tokens_of(body) if t.type == "inline")
    assert [child.type for child in heading.children] == ["code_inline"] and heading.children[0].content == folder.name


@pytest.mark.parametrize("name", "run.json run.yaml log.jsonl config.json tokenizer.json model.safetensors".split())
def test_a_missing_or_unreadable_file_gives_a_shorter_card(copied, name):
    for content in (None, b"", b"\xff\xfe{", b"[" * 100_000, b'{"a": ', b"null", b"[1]"):
        (copied / name).unlink(missing_ok=True)
        if content is not None:
            (copied / name).write_bytes(content)
        data, body = parts(card(copied))
        assert data["library_name"] == "transformers" and "## Limits and intended use" in body


def test_secrets_stay_out(copied, monkeypatch):
    secret, own = "hf_" + 34 * "x", "correct-horse-battery"
    monkeypatch.setenv("MY_API_KEY", own)
    source = {"dataset_name": f"me/{secret}", "hub": True, "license": own, "files": [{"name": own}]}
    change(copied, text={"sources": [source]}, versions={"a": own, own: "b"})
    last = {"step": 9, "eval_loss": 1.0, "samples": [{"prompt": secret, "text": f"Authorization: Bearer {'k' * 30}"}]}
    (copied / "log.jsonl").write_text(json.dumps(last) + "\n")
    address = f"https://me:{own}@host/x.txt?token={'z' * 20}"
    (copied / "run.yaml").write_text(yaml.safe_dump({"data": {"train_file": [address]}}))
    text = card(copied.rename(copied.with_name(own)))
    assert secret not in text and own not in text and "k" * 30 not in text and "z" * 20 not in text


# what is known elsewhere: licenses, datasets, bases


def test_a_license_unknown_to_the_hub_becomes_other(copied):
    chosen = yaml.safe_load((copied / "run.yaml").read_text())
    chosen["training"] |= {"license": "my-own-1.0", "language": ["de", "en"]}
    (copied / "run.yaml").write_text(yaml.safe_dump(chosen))
    data = parts(card(copied))[0]
    assert (data["license"], data["license_name"], data["language"]) == ("other", "my-own-1.0", ["de", "en"])
    assert len(LICENSES) > 60 and {"mit", "gemma", "llama3.2"} <= LICENSES


def test_license_and_commit_of_a_dataset_come_from_the_cache_of_the_hub(copied, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, cache = "a" * 40, tmp_path / "datasets--me--texts"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "snapshots" / commit / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage: en\n---\n# Texts\n")
    source = describe_source({"dataset_name": "me/texts"})
    assert (source["hub"], source["commit"], source["license"]) == (True, commit, "cc-by-4.0")
    assert describe_source({"dataset_name": "me/other"})["license"] is None
    assert describe_source({"dataset_name": "../../etc"})["hub"] is False
    assert describe_source({"dataset_name": "me/texts", "dataset_revision": "../../x"})["commit"] is None
    change(copied, text={"sources": [source]})
    data, body = parts(card(copied))
    assert data["datasets"] == ["me/texts"] and data["model-index"][0]["results"][0]["dataset"]["revision"] == commit
    assert f"dataset of the Hub `me/texts`, commit `{commit}`; license: `cc-by-4.0`, according to its card" in body
    (cache / "snapshots" / commit / "README.md").write_text("---\nlicense: [\n---\n")
    assert describe_source({"dataset_name": "me/texts"})["license"] is None


def test_a_base_of_the_hub_is_named_and_a_folder_here_is_not_taken_for_one(copied):
    change(copied, base_model={"name": "me/base", "hub": True})
    assert parts(card(copied))[0]["base_model"] == "me/base"
    change(copied, base_model={"name": "base", "hub": False})
    data, body = parts(card(copied))
    assert "base_model" not in data and "from the weights of `base`" in body
