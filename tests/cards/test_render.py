"""The model card: every number is the run's, whatever a value is called it stays a value, and a person's README is left alone."""

import dataclasses
import inspect
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tinygpt_hf.cards.facts import read_run
from tinygpt_hf.cards.loss_curve import loss_curve
from tinygpt_hf.cards.markdown import block, code, front_matter
from tinygpt_hf.cards.numbers import count
from tinygpt_hf.cards.provenance import described
from tinygpt_hf.cards.render import LICENSES, card, is_ours, metadata, write_card
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation import memorization as copies_module
from tinygpt_hf.evaluation.baselines import baselines, ngram_nats
from tinygpt_hf.evaluation.memorization import LENGTH, copies
from tinygpt_hf.hub import push_pull as hub
from tinygpt_hf.inference.generation import continue_prompts
from tinygpt_hf.rows.store import Rows, RowWriter
from tinygpt_hf.settings.arguments import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.hub import PushArguments
from tinygpt_hf.training import recipe

SETTINGS = TrainingArguments(
    max_steps=6,
    per_device_train_batch_size=8,
    mixed_precision="no",
    device="cpu",
    logging_steps=1,
    eval_steps=3,
    sample_tokens=60,
    license="apache-2.0",
    data_license="public domain | <b>",
)
HOSTILE = "a`b ``|`` <script>alert(1)</script> ](http://x.y) ---\n---\nlicense: mit\n# head\n![i](z) \"q\" 'p' www.evil.com me@x.y"


def run(folder: Path, text: Path, **training):
    return recipe.train(
        ModelArguments(hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
        DataArguments(train_file=[str(text)], block_size=96, validation_split="tail", validation_split_percentage=20),
        TokenizerArguments(tokenizer_type="byte"),
        dataclasses.replace(SETTINGS, output_dir=str(folder), **training),
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
    """The small files of the run, to be changed."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "run.yaml", "log.jsonl", "config.json", "tokenizer.json"):
        (folder / name).write_bytes((finished / name).read_bytes())
    return folder


def change(folder: Path, name: str = "run.json", **values) -> None:
    facts = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**facts, **values}))


def parts(text: str) -> tuple[dict, str]:
    """(metadata, body) of a card, cut as the Hub cuts it."""
    found = re.match(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))", text)
    return yaml.safe_load(found[2]), text[found.end() :]


def tokens_of(body: str):
    """The body as a Markdown parser with tables, raw HTML and links of its own making sees it: flat tokens."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    flat = []
    for token in parser.parse(body):
        flat += [token, *(token.children or ())]
    return flat


def assert_inert(body: str) -> None:
    """Nothing in the body but ours is HTML, a link, an image, a heading, or plain text that a renderer makes a link of."""
    tokens = tokens_of(body)
    html = [t.content for t in tokens if t.type in ("html_block", "html_inline")]
    allowed = r"<details>\n<summary>All other settings</summary>\n?|</details>\n?|<!-- tinygpt_hf made .*-->\n?"
    assert all(re.fullmatch(allowed, piece) for piece in html), html
    links = [t.attrs["href"] for t in tokens if t.type == "link_open"]
    assert set(links) <= {"https://pypi.org/project/tinygpt_hf/"}
    assert {t.attrs["src"] for t in tokens if t.type == "image"} <= {"loss_curve.svg"}
    known = (
        "What it is",
        "How to use it",
        "Training text",
        "Training",
        "Results",
        "Samples",
        "Limits and intended use",
    )
    known += ("Hardware and time", "Versions, and how to reproduce it")
    heads = [tokens[k + 1].content for k, t in enumerate(tokens) if t.type == "heading_open"]
    assert set(heads[1:]) <= set(known) and len(heads) == len(set(heads))
    plain = " ".join(t.content for t in tokens if t.type == "text")
    assert not re.search(r"www\.|https?:|\w@\w|script|evil", plain)


def test_the_front_matter_is_what_the_hub_reads(finished):
    text = (finished / "README.md").read_text()
    data, body = parts(text)
    assert data == metadata(read_run(finished)) == ModelCard(text).data.to_dict() == ModelCardData(**data).to_dict()
    assert (
        data["library_name"] == "transformers"
        and data["pipeline_tag"] == "text-generation"
        and "tinygpt" in data["tags"]
    )
    assert data["license"] == "apache-2.0" and not {"language", "datasets", "base_model"} & set(data)
    (result,) = data["model-index"][0]["results"]
    facts = json.loads((finished / "run.json").read_text())["result"]
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found == {
        name: pytest.approx(facts[f"eval_{name}"], abs=1e-4) for name in ("loss", "perplexity", "bits_per_byte")
    }
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]), rel=1e-4)
    assert result["task"]["type"] == "text-generation" and result["dataset"]["type"] == "text"
    assert "we`ird|<b>.txt" in result["dataset"]["name"]
    assert_inert(body)


def test_the_body_tells_what_the_run_was(finished, text):
    body = parts((finished / "README.md").read_text())[1]
    facts = json.loads((finished / "run.json").read_text())
    rows = Rows(finished / "rows" / "train")
    assert f"| parameters | {facts['result']['parameters']:,} |" in body and "`Qwen3ForCausalLM`" in body
    assert f"training: {rows.num_documents} documents, {rows.num_tokens:,} tokens, {rows.num_bytes:,} bytes" in body
    assert "``we`ird|<b>.txt``" in body and "not stated: find out before you publish" in body
    assert "`public domain | <b>`" in body
    assert "max_steps: 6" in body.split("<details>")[0] and "optim: muon" in body.split("<details>")[1]
    for name, version in facts["versions"].items():
        assert f"`{name}` `{version}`" in body
    assert "temperature=0.8, top_k=50" in inspect.getsource(continue_prompts) and "(temperature 0.8, top 50" in body
    assert "6 steps on" in body and "seed 42" in body and "energy it took was not measured" in body
    sample = read_run(finished).samples[0]
    assert block(sample["text"]) in body and block(sample["prompt"]) in body
    assert str(text.parent) not in body and "private-place" not in body and str(finished) not in body


def test_the_code_of_the_card_runs(finished, capsys):
    body = parts((finished / "README.md").read_text())[1]
    snippet = re.search(r"```python\n(.*?)```", body, re.DOTALL)[1].replace("MODEL", str(finished))
    exec(snippet.replace("max_new_tokens=100", "max_new_tokens=3"), {})
    assert capsys.readouterr().out.startswith("Once upon a time")


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


def test_baselines_of_conversations_score_what_the_assistant_says():
    rng = np.random.default_rng(0)
    train, validation = rng.integers(0, 7, 500), rng.integers(0, 7, 60)
    scored = rng.random(60) < 0.3
    found = baselines(train, validation, 7, 100, scored)
    unigram, trigram = ngram_nats(train, validation, 7)
    places = [k for k in range(1, 60) if scored[k]]
    expected = [
        math.log(7),
        sum(unigram[k - 1] for k in places) / len(places),
        sum(trigram[k - 1] for k in places) / len(places),
    ]
    assert [b.loss for b in found] == pytest.approx(expected)
    assert found[0].bits_per_byte == pytest.approx(math.log2(7) * len(places) / 100)


def test_the_mask_of_all_rows_is_that_of_the_documents(tmp_path):
    with RowWriter(tmp_path / "rows", 10) as writer:
        writer.add([1, 2, 3], [0, 1, 1])
        writer.add([4, 5], [1, 0])
    rows = Rows(tmp_path / "rows")
    assert rows.is_target.tolist() == [*rows.targets(0), *rows.targets(1)] == [False, True, True, True, False]


def test_a_card_in_a_run_says_how_it_compares(finished):
    body, run_ = parts((finished / "README.md").read_text())[1], read_run(finished)
    rows = Rows(finished / "rows" / "train"), Rows(finished / "rows" / "validation")
    found = baselines(rows[0].tokens, rows[1].tokens, run_.config["vocab_size"], rows[1].num_bytes)
    assert run_.baseline_losses == {b.name: b.loss for b in found}
    for baseline in found:
        assert f"| {baseline.loss:.4f} | {baseline.perplexity:,.2f} | {baseline.bits_per_byte:.4f} |" in body
    assert "worse than counting trigrams" in body  # six steps


# copies


class Letters:
    """A tokenizer whose ids are characters."""

    def batch_decode(self, batch, skip_special_tokens):
        return ["".join(map(chr, ids)) for ids in batch]


def letter_rows(folder: Path, documents: list[str]) -> Path:
    with RowWriter(folder, 1 << 20) as writer:
        for document in documents:
            writer.add([ord(c) for c in document])
    return folder


def plain_share(texts: list[str], documents: list[str]) -> tuple[int, int]:
    """(sequences, those in the documents), the slow obvious way."""
    clean = [" ".join(document.split()) for document in documents]
    every = [" ".join(t.split())[k : k + LENGTH] for t in texts for k in range(len(" ".join(t.split())) - LENGTH + 1)]
    return len(every), sum(any(sequence in document for document in clean) for sequence in every)


@pytest.mark.parametrize("piece", [1 << 18, 100])
def test_copies_are_those_a_plain_search_finds(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(copies_module, "PIECE_TOKENS", piece)
    rng = np.random.default_rng(1)
    words = ["sun", "moon", "Straße", "日本", "🙂", "a", "e\u0301", "tree\n", "\t"]
    documents = [" ".join(rng.choice(words, 120)) for _ in range(6)]
    texts = [
        documents[2][50:150] + " never said before by anybody at all",
        documents[0][-20:] + documents[1][:20],
        "short",
        documents[3][5:25],
    ]
    held = [documents[4][3:90].replace(" ", "\n  "), "nothing of this stands in the training text, really"]
    found = copies(texts, held, Letters(), letter_rows(tmp_path / "rows", documents))
    assert (found["sequences"], found["copied"]) == plain_share(texts, documents)
    assert (found["held_out_sequences"], found["held_out_copied"]) == plain_share(held, documents)
    assert (found["short"], found["short_copied"]) == (2, 1)
    assert 0 < found["copied"] < found["sequences"] and found["tokens"] == found["searched_tokens"] == sum(
        map(len, documents)
    )


def test_of_a_long_text_an_even_part_is_searched_and_said_so(tmp_path, monkeypatch, copied):
    monkeypatch.setattr(copies_module, "PIECE_TOKENS", 1000)
    monkeypatch.setattr(copies_module, "MOST_TOKENS", 4000)
    rows = letter_rows(tmp_path / "rows", [f"document number {k} says that {k * 7919} is a number" for k in range(400)])
    found = copies(["document number 3 says that 23757 is a number"], [], Letters(), rows)
    assert found["searched_tokens"] <= 4000 < found["tokens"]
    change(copied, copies=found)
    assert f"{found['searched_tokens'] / found['tokens']:.0%} of the text was searched" in card(copied)


def test_the_run_counts_copies_of_its_last_samples(finished):
    from transformers import AutoTokenizer

    run_ = read_run(finished)
    ids = Rows(finished / "rows" / "train")
    tokenizer = AutoTokenizer.from_pretrained(finished)
    documents = [tokenizer.decode(ids.document(k), skip_special_tokens=True) for k in range(ids.num_documents)]
    counted = plain_share([sample["text"] for sample in run_.samples], documents)
    assert (run_.number("copies", "sequences"), run_.number("copies", "copied")) == counted and counted[0] > 0
    assert f"{counted[1] / counted[0]:.1%} of the {counted[0]} sequences of 32 characters" in card(finished)


# whose README it is


def test_a_readme_of_a_person_is_never_overwritten(copied, tmp_path):
    (copied / "README.md").write_text("# Mine\n")
    assert not write_card(copied) and (copied / "README.md").read_text() == "# Mine\n"
    (copied / "README.md").unlink()
    assert write_card(copied) and is_ours(copied)
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


def test_a_later_resume_writes_it_anew_and_a_kill_before_it_is_made_good(tmp_path, text, monkeypatch):
    def killed(folder):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "write_card", killed)
        with pytest.raises(SystemExit):
            run(tmp_path / "r", text)
    assert not (tmp_path / "r" / "README.md").exists()
    run(tmp_path / "r", text)
    first = (tmp_path / "r" / "README.md").read_text()
    run(tmp_path / "r", text, max_steps=8)
    second = (tmp_path / "r" / "README.md").read_text()
    assert (
        "6 steps on" in first
        and "8 steps on" in second
        and "<circle" in (tmp_path / "r" / "loss_curve.svg").read_text()
    )


# values stay values

hostile_text = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            HOSTILE,
            "---\nlicense: mit\n---\n",
            "`",
            "``",
            "<script>",
            "](http://evil.com)",
            "a|b",
            "\r\n\r\n# x",
            "\u2028# x",
        ]
    ),
    st.text("`|<>[]()#\n\r-&;!*_~$\\\"' \u0085\u2028ab", max_size=30),
)


@settings(deadline=None)
@given(hostile_text)
def test_code_is_one_code_span_and_block_is_one_code_block(value):
    tokens = tokens_of(f"- before {code(value)} after")
    inline = [t for t in tokens if t.type in ("text", "code_inline")]
    assert [t.type for t in inline] == ["text", "code_inline", "text"] and inline[0].content == "before "
    kinds = [t.type for t in tokens_of(f"before\n\n{block(value)}\n\nafter")]
    assert (
        kinds.count("fence") == 1 and "html_block" not in kinds and kinds[-3:] == ["inline", "text", "paragraph_close"]
    )


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9), st.lists(st.one_of(hostile_text, st.integers(), st.booleans())), max_size=4
    )
)
def test_front_matter_is_read_back_as_it_was(data):
    found = front_matter(data)
    assert yaml.safe_load(found.removeprefix("---\n").removesuffix("---\n")) == (data or {})
    assert re.findall(r"^---", found, re.M) == ["---", "---"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(hostile_text, min_size=16, max_size=16))
def test_no_value_of_a_run_becomes_anything_else(copied, words):
    word = iter(words)
    files = [{"name": next(word), "size": 3}, {"name": next(word)}]
    sources = [
        {"files": files, "num_files": 2, "license": next(word)},
        {
            "dataset_name": next(word),
            "dataset_config_name": next(word),
            "dataset_revision": next(word),
            "commit": next(word),
            "hub": True,
        },
    ]
    change(
        copied,
        text={"sources": sources, "validation_source": {"dataset_name": next(word)}},
        versions={next(word): next(word)},
        hardware={"device": next(word) or "cpu", "processor": next(word)},
        base_model={"name": next(word), "hub": True},
        data=next(word),
    )
    last = {"step": 9, "eval_loss": 1.0, "samples": [{"prompt": next(word), "text": next(word)}]}
    (copied / "log.jsonl").write_text(f'{{"step": 1, "loss": 2.0}}\n{json.dumps(last)}\n')
    data, body = parts(card(copied))
    assert data == metadata(read_run(copied))
    assert set(data) <= {
        "language",
        "license",
        "library_name",
        "pipeline_tag",
        "tags",
        "datasets",
        "base_model",
        "metrics",
        "model-index",
    }
    assert data["license"] == "apache-2.0"
    assert_inert(body)


def test_hostile_settings_and_folder_names_too(copied):
    (copied / "run.yaml").write_text(
        yaml.safe_dump(
            {
                "data": {"train_file": [HOSTILE], "dataset_name": HOSTILE},
                "training": {"license": HOSTILE, "language": HOSTILE},
            }
        )
    )
    folder = copied.rename(copied.with_name("we`ird <script> ](x.y)"))
    data, body = parts(card(folder))
    assert "license" not in data and "language" not in data and data["model-index"][0]["name"] == folder.name
    assert_inert(body)
    heading = next(t for t in tokens_of(body) if t.type == "inline")
    assert [child.type for child in heading.children] == ["code_inline"] and heading.children[0].content == folder.name


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_folder_gives_a_shorter_card(copied, data):
    anything = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), hostile_text, st.just(10**400)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(hostile_text, inner, max_size=3)),
        max_leaves=6,
    )
    facts = json.loads((copied / "run.json").read_text())
    spoilt = dict(facts)
    for name in data.draw(st.lists(st.sampled_from(sorted(facts)), min_size=1, max_size=5)):
        spoilt[name] = data.draw(anything)
    inside = data.draw(st.sampled_from(["result", "hardware", "text", "copies", "versions"]))
    if isinstance(facts.get(inside), dict):
        spoilt[inside] = {**facts[inside], data.draw(st.sampled_from(sorted(facts[inside]))): data.draw(anything)}
    config = {**json.loads((copied / "config.json").read_text())}
    config[data.draw(st.sampled_from(sorted(config)))] = data.draw(anything)
    folder = copied / "spoilt"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(spoilt))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "log.jsonl").write_text(
        json.dumps(data.draw(anything)) + "\n" + json.dumps({"step": data.draw(anything), "loss": 1.0}) + "\n"
    )
    (folder / "run.yaml").write_text(json.dumps({"training": data.draw(anything), "data": data.draw(anything)}))
    text = card(folder)
    text.encode()
    assert_inert(parts(text)[1])


@pytest.mark.parametrize(
    "name", ["run.json", "run.yaml", "log.jsonl", "config.json", "tokenizer.json", "model.safetensors"]
)
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe{", b"[" * 100_000, b'{"a": ', b"null", b"[1]"])
def test_a_missing_or_unreadable_file_gives_a_shorter_card(copied, name, content):
    (copied / name).unlink(missing_ok=True)
    if content is not None:
        (copied / name).write_bytes(content)
    data, body = parts(card(copied))
    assert data["library_name"] == "transformers" and "## Limits and intended use" in body


@pytest.mark.parametrize("files", [5, None, "x", [1, {"name": 2, "size": "y"}]])
def test_a_source_whose_files_are_no_list_of_files_gives_a_shorter_card(copied, files):
    change(copied, text={"sources": [{"files": files}]})
    assert_inert(parts(card(copied))[1])


def test_a_number_is_shown_in_the_unit_it_rounds_to():
    numbers = [1_234_567, 999_817_216, 999_499_999, 999_960_000_000, 999_499]
    assert list(map(count, numbers)) == ["1.23 million", "1 billion", "999 million", "1 trillion", "999,499"]


def test_secrets_stay_out(copied, monkeypatch):
    secret, own = "hf_" + 34 * "x", "correct-horse-battery"
    monkeypatch.setenv("MY_API_KEY", own)
    change(
        copied, text={"sources": [{"dataset_name": f"me/{secret}", "hub": True, "license": own}]}, versions={"a": own}
    )
    last = {"step": 9, "eval_loss": 1.0, "samples": [{"prompt": secret, "text": f"Authorization: Bearer {'k' * 30}"}]}
    (copied / "log.jsonl").write_text(json.dumps(last) + "\n")
    (copied / "run.yaml").write_text(
        yaml.safe_dump({"data": {"train_file": [f"https://me:{own}@host/x.txt?token={'z' * 20}"]}})
    )
    text = card(copied)
    assert secret not in text and own not in text and "k" * 30 not in text and "z" * 20 not in text


# licences, datasets, the picture


def test_a_licence_the_hub_does_not_know_is_an_other_one(copied):
    shown = yaml.safe_load((copied / "run.yaml").read_text())
    shown["training"] |= {"license": "my-own-1.0", "language": ["de", "en"]}
    (copied / "run.yaml").write_text(yaml.safe_dump(shown))
    data = metadata(read_run(copied))
    assert (data["license"], data["license_name"], data["language"]) == ("other", "my-own-1.0", ["de", "en"])
    assert len(LICENSES) > 60 and {"mit", "gemma", "llama3.2"} <= LICENSES


@pytest.mark.parametrize("wrong", [{"license": "Apache 2.0"}, {"language": ["English"]}])
def test_what_the_hub_would_refuse_is_refused_first(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"--{name} is '(Apache 2.0|English)'"):
        check_settings(dataclasses.replace(SETTINGS, output_dir="x", **wrong))


def test_licence_and_commit_of_a_dataset_come_from_the_cache_of_the_hub(copied, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, place = "a" * 40, tmp_path / "datasets--me--texts"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "snapshots" / commit / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage: en\n---\n# Texts\n")
    found = described({"dataset_name": "me/texts"})
    assert (found["hub"], found["commit"], found["license"]) == (True, commit, "cc-by-4.0")
    assert described({"dataset_name": "me/other"})["license"] is None
    assert described({"dataset_name": "../../etc"})["hub"] is False
    assert described({"dataset_name": "me/texts", "dataset_revision": "../../x"})["commit"] is None
    change(copied, text={"sources": [found]})
    data, body = parts(card(copied))
    assert data["datasets"] == ["me/texts"] and data["model-index"][0]["results"][0]["dataset"]["revision"] == commit
    assert f"dataset of the Hub `me/texts`, commit `{commit}`; licence: `cc-by-4.0`, says its own card" in body


def test_a_base_of_the_hub_is_named_and_a_folder_here_is_not_taken_for_one(copied):
    change(copied, base_model={"name": "me/base", "hub": True})
    assert parts(card(copied))[0]["base_model"] == "me/base"
    change(copied, base_model={"name": "base", "hub": False})
    data, body = parts(card(copied))
    assert "base_model" not in data and "from the weights of `base`" in body


def test_the_curve_draws_every_loss_at_its_place(finished):
    picture = ElementTree.fromstring((finished / "loss_curve.svg").read_text())
    name = "{http://www.w3.org/2000/svg}"
    line = next(path.get("d") for path in picture.iter(f"{name}path") if path.get("fill") == "none")
    points = [tuple(map(float, point.split())) for point in line[1:].split("L")]
    lines = [entry for entry in read_run(finished).lines if "loss" in entry]
    assert len(points) == len(lines) == 6 and len(list(picture.iter(f"{name}circle"))) == 2
    (x0, y0), (x1, y1), (x2, y2) = points[0], points[1], points[-1]
    assert (x2 - x0) / (x1 - x0) == pytest.approx(5, rel=0.01)
    rise = (lines[0]["loss"] - lines[-1]["loss"]) / (lines[0]["loss"] - lines[1]["loss"])
    assert (y2 - y0) / (y1 - y0) == pytest.approx(rise, rel=0.2)


def test_the_numbers_of_steps_are_inside_the_picture():
    picture = ElementTree.fromstring(loss_curve({"": [{"step": step, "loss": 2.0} for step in (1, 100_000)]}))
    steps = [(float(t.get("x")), t.text) for t in picture.iter() if t.get("text-anchor") == "middle"]
    assert [text for _, text in steps] == ["0", "20000", "40000", "60000", "80000", "100000"]
    assert all(x + 3.5 * len(text) < 720 for x, text in steps)  # a digit of this size is 7 wide


def test_a_curve_of_nothing_is_none_and_of_much_is_small():
    assert loss_curve({"": []}) is None and loss_curve({"": [{"step": 0, "loss": 1.0}]}) is None
    many = [{"step": k, "loss": 1e6 / k, "eval_loss": math.nan} for k in range(1, 100_000)]
    picture = loss_curve({"<b>": many, "x": [{"step": "a", "loss": True}, {"step": 3, "loss": 10**400}]}, {"<i>": 2.0})
    assert len(picture) < 50_000 and "<b>" not in picture and "<i>" not in picture
    ElementTree.fromstring(picture)


def test_push_writes_the_card_under_the_name_it_gets(copied, monkeypatch):
    class Stopped(Exception):
        pass

    def stopped(*_):
        raise Stopped

    monkeypatch.setattr(hub, "check_login", lambda: None)
    monkeypatch.setattr(hub, "pack", stopped)
    with pytest.raises(Stopped):
        hub.push(PushArguments(str(copied), "me/my-model", dry_run=True), print)
    assert not (copied / "README.md").exists()
    with pytest.raises(Stopped):
        hub.push(PushArguments(str(copied), "me/my-model"), print)
    assert 'model="me/my-model"' in (copied / "README.md").read_text()
