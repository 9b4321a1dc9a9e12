"""Compare `tinygpt inspect` with direct computations for several architectures, and test its terminal view, page and JSON."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from transformers import AutoConfig, AutoModelForCausalLM

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.cli import main
from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.generation import generate_steps
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.inspection.attention import attention_maps, check_size, pack_maps, summarize_heads
from tinygpt_hf.inspection.history import learned_at
from tinygpt_hf.inspection.inspect import inspect
from tinygpt_hf.inspection.lens import logit_lens, right_from
from tinygpt_hf.inspection.page import digest, render_template
from tinygpt_hf.inspection.screen import screen
from tinygpt_hf.inspection.surprisal import Scores, read_tokens, text_ids, token_scores
from tinygpt_hf.model.conversion import DIALECTS
from tinygpt_hf.settings.inference import InspectArguments

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
STOCK = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": SHAPE | {"intermediate_size": 64, "num_key_value_heads": 1},
    "qwen3": SHAPE | {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16},
    "gpt_neox": SHAPE | {"intermediate_size": 64},
    "gemma2": SHAPE | {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16, "final_logit_softcapping": 2.0},
}  # fmt: skip
MODELS = ["ours", "ours_gpt2", "gpt2", "llama", "qwen3", "gpt_neox"]
PARTS = {"gpt2": ("transformer.h", "transformer.ln_f"), "gpt_neox": ("gpt_neox.layers", "gpt_neox.final_layer_norm")}
TEXT = "One day a small dog\nnamed Pip found ☃ <b>."


@pytest.fixture(scope="module")
def built(tiny_tokenizer):
    """Return a function from a name to a tiny model with large random weights."""
    made = {}

    def build(name):
        if name not in made:
            torch.manual_seed(0)
            size = {"vocab_size": len(tiny_tokenizer)}
            if name.startswith("ours"):
                made[name] = TinyGPTForCausalLM(TinyGPTConfig(**size, **SHAPE, **DIALECTS.get(name[5:], {})))
            else:
                ends = {"bos_token_id": 0, "eos_token_id": 0}
                made[name] = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **size, **ends, **STOCK[name]))
            with torch.no_grad():
                for weight in made[name].parameters():
                    weight.mul_(3)
            made[name].eval()
        return made[name]

    return build


@pytest.fixture(scope="module")
def ids(tiny_tokenizer):
    return text_ids(tiny_tokenizer, TEXT)


@pytest.fixture(scope="module")
def run(built, tiny_tokenizer, tmp_path_factory):
    """Return a run folder with the weights of three steps."""
    folder = tmp_path_factory.mktemp("run")
    model = built("ours")
    for name in (".", "snapshots/step-1", "snapshots/step-10", "checkpoint-20"):
        torch.manual_seed(len(name))
        changed = TinyGPTForCausalLM(model.config)
        (model if name == "." else changed).save_pretrained(folder / name)
        tiny_tokenizer.save_pretrained(folder / name)
    return folder


def logits_of(model, ids) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().numpy()


@pytest.mark.parametrize("name", MODELS)
def test_surprisal_is_a_softmax_by_hand(built, tiny_tokenizer, ids, name):
    model = built(name)
    logits = logits_of(model, ids)
    tokens = read_tokens(model, tiny_tokenizer, ids)
    assert (tokens[0].bits, tokens[0].rank, tokens[0].text) == (None, None, tiny_tokenizer.bos_token)
    assert (
        "".join(token.text for token in tokens[1:]).replace(r"\xe2\x98\x83", "☃").replace(r"\xe2", "").endswith("<b>.")
    )
    assert sum(token.bytes for token in tokens[1:]) == len(TEXT.encode())
    for place, token in enumerate(tokens[1:], 1):
        shares = np.exp(logits[place - 1] - logits[place - 1].max())
        shares /= shares.sum()
        own = shares[ids[place]]
        assert token.id == ids[place]
        assert token.bits == pytest.approx(-np.log2(own), abs=1e-9) and token.probability == pytest.approx(own)
        assert token.rank == 1 + (shares > own).sum()
        assert token.entropy == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-9)
        best = np.sort(shares)[::-1][:5]
        assert [chance for _, chance in token.candidates] == pytest.approx(best.tolist())


def same(one: Scores, other: np.ndarray, ids: list[int]) -> None:
    """Assert that the scores are those of logits (T, V)."""
    logs = torch.from_numpy(other[:-1]).log_softmax(-1)
    own = logs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    torch.testing.assert_close(one.bits, -own / np.log(2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.probabilities[:, 0], logs.exp().max(-1).values, rtol=1e-5, atol=1e-7)
    assert torch.equal(one.ranks, 1 + (logs > own[:, None]).sum(1))


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_the_lens_is_its_hidden_states_through_norm_and_head(built, ids, name):
    model = built(name)
    layers, norm = (model.get_submodule(place) for place in PARTS.get(name, ("model.layers", "model.norm")))
    states, handles = [], [layers[0].register_forward_pre_hook(lambda part, words: states.append(words[0]))]
    for layer in layers:
        handles.append(layer.register_forward_hook(
            lambda part, words, out: states.append(out[0] if isinstance(out, tuple) else out)
        ))  # fmt: skip
    own = logits_of(model, ids)
    for handle in handles:
        handle.remove()
    lens = logit_lens(model, ids)
    assert len(lens) == len(states) == 3
    with torch.no_grad():
        for scores, state in zip(lens, states, strict=True):
            same(scores, model.get_output_embeddings()(norm(state))[0].double().numpy(), ids)
    same(lens[-1], own, ids)
    assert not torch.equal(lens[0].bits, lens[1].bits)


def test_the_lens_refuses_models_with_more_than_a_norm_and_a_head(built, ids):
    with pytest.raises(UsageError, match="lens does not know what is between .* in a gemma2"):
        logit_lens(built("gemma2"), ids)


def test_right_from_is_the_layer_after_which_nothing_is_wrong():
    ranks = [[1, 1, 2, 1, 9], [1, 2, 1, 2, 9], [1, 1, 1, 2, 9]]
    lens = [Scores(None, torch.tensor(row), None, None, None) for row in ranks]
    assert right_from(lens) == [0, 2, 1, None, None]


@pytest.mark.parametrize("name", MODELS)
def test_attention_is_what_the_heads_compute(built, ids, name):
    model = built(name)
    model.set_attn_implementation("sdpa")
    maps = attention_maps(model, ids)
    assert model.config._attn_implementation == "sdpa" and maps.shape == (2, 2, len(ids), len(ids))
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:3]))
    assert maps.triu(1).count_nonzero() == 0
    if name == "gpt2":  # its first layer, by hand
        kept = []
        with (
            torch.no_grad(),
            model.transformer.h[0].attn.c_attn.register_forward_hook(lambda *call: kept.append(call[2])),
        ):
            model(torch.tensor([ids]))
        q, k, _ = (part.view(-1, 2, 16).transpose(0, 1) for part in kept[0][0].split(32, -1))  # (H, T, D)
        scores = (q @ k.transpose(1, 2) / 4).masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf)
        torch.testing.assert_close(maps[0], scores.softmax(-1), rtol=1e-4, atol=1e-5)


def test_head_summaries_and_encoded_maps_have_the_same_weights(built, ids):
    maps = attention_maps(built("gpt2"), ids)
    head_summary = summarize_heads(maps)[1][0]
    own, count = maps[1, 0].numpy(), len(ids)
    rows = range(1, count)
    assert head_summary["itself"] == pytest.approx(np.mean([own[i, i] for i in rows]))
    assert head_summary["previous"] == pytest.approx(np.mean([own[i, i - 1] for i in rows]))
    assert head_summary["first"] == pytest.approx(np.mean([own[i, 0] for i in rows]))
    assert head_summary["back"] == pytest.approx(np.mean([sum(own[i, j] * (i - j) for j in range(i)) for i in rows]))
    data, per_head = base64.b64decode(pack_maps(maps)), count * (count + 1) // 2
    assert len(data) == 4 * per_head
    for i, j in ((0, 0), (3, 1), (count - 1, count - 1)):
        assert data[2 * per_head + i * (i + 1) // 2 + j] == round(float(own[i, j]) * 255)
    with pytest.raises(UsageError, match="at most 1414 tokens with --attention"):
        check_size(built("gpt2"), 1415)


def test_the_same_text_over_a_run(run, tiny_tokenizer):
    seen = inspect(InspectArguments(str(run), text=TEXT, checkpoints=True))
    assert [moment.step for moment in seen.moments] == [1, 10, 20]
    model = TinyGPTForCausalLM.from_pretrained(run / "snapshots/step-10").eval()
    scores = token_scores(model, text_ids(tiny_tokenizer, TEXT))
    assert seen.moments[1].bits == pytest.approx(scores.bits.tolist())
    assert seen.moments[1].ranks == scores.ranks.tolist()
    for moment, ranks in zip(seen.moments, ([1, 2, 1], [1, 1, 2], [1, 1, 2]), strict=True):
        moment.ranks = ranks
    assert learned_at(seen.moments) == [1, 10, None]


def test_a_prompt_is_continued_greedily(run, built, tiny_tokenizer):
    seen = inspect(InspectArguments(str(run), prompt="One day", max_new_tokens=7))
    ids = text_ids(tiny_tokenizer, "One day")
    steps = generate_steps(built("ours"), tiny_tokenizer, ids, Sampling(temperature=0), max_new_tokens=7)
    assert seen.prompt == len(ids)
    assert [token.id for token in seen.tokens] == [*ids, *(step.id for step in steps)]
    assert all(token.rank == 1 for token in seen.tokens[len(ids) :])


@pytest.fixture(scope="module")
def seen(run):
    return inspect(InspectArguments(str(run), text=TEXT, lens=True, attention=True, checkpoints=True))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_terminal_shows_every_number_with_and_without_color(seen, width):
    plain, colored = screen(seen, width=width), screen(seen, color=True, width=width)
    assert "\x1b" not in plain and "\x1b[38;5;16;48;5;" in colored
    assert max(map(cell_len, plain.split("\n"))) <= width
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in stripped.split("\n")] == plain.split("\n")
    if width > 40:
        for token in seen.measured:
            assert f"{token.bits:.2f}" in plain and f"{token.probability:.1%}" in plain


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self.now = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.now = tag + dict(attributes).get("id", "")

    def handle_endtag(self, tag):
        self.now = None

    def handle_data(self, text):
        self.data[self.now] = self.data.get(self.now, "") + text


def test_a_page_holds_all_numbers_and_escapes_all_text(seen):
    facts = seen.facts()
    hostile = "</script><img src=x onerror=alert(1)>\u2028&<!--"
    facts["model"] = facts["tokens"][3]["text"] = hostile
    text = render_template("inspect.html.jinja", facts=facts)
    parts = Tags(text)
    names = [tag for tag, _ in parts.tags]
    assert "img" not in names and names.count("script") == 2
    assert json.loads(parts.data["scriptfacts"])["tokens"] == json.loads(json.dumps(facts["tokens"]))
    policy = next(a["content"] for _, a in parts.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and f"'{digest(parts.data['script'])}'" in policy
    assert not re.search(r"(?:src|href)=|https?:|url\(", text.replace("img src=x", ""))


def test_the_command_writes_a_page_and_all_numbers(run, tmp_path, capsys):
    words = [
        "--lens",
        "--attention",
        "--checkpoints",
        "--html",
        f"{tmp_path}/a.html",
        "--output_file",
        f"{tmp_path}/a.json",
    ]
    (tmp_path / "a.txt").write_text(TEXT)
    assert main(["inspect", str(run), "--file", f"{tmp_path}/a.txt", *words]) == 0
    assert f"The page: {tmp_path}/a.html" in capsys.readouterr().out
    facts = json.loads((tmp_path / "a.json").read_text())
    assert len(facts["lens"]["layers"]) == 3 and len(facts["history"]["moments"]) == 3
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "there is nothing to read"),
        (["--text", ""], "the prompt or text is empty"),
        (["--text", "a", "--prompt", "b"], "--text a and --prompt b are both given"),
        (["--text", "day " * 100], "at most 64, the model's context"),
        (["--file", "binary"], "NUL bytes"),
        (["--file", "latin"], "cannot be read"),
        (["--file", "missing"], "cannot be read"),
        (["--text", "a", "--html", "."], "--html . is a folder"),
        (["--text", "a", "--output_file", "no/x.json"], "which does not exist"),
        (["--prompt", "a", "--max_new_tokens", "0"], "max_new_tokens is 0"),
        (["--text", "a", "--checkpoints"], "holds the weights of 0 steps"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(tiny_folder, built, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "model").symlink_to(tiny_folder)
    before = sorted(tmp_path.rglob("*"))
    said = said.replace("64", "32")  # of the tiny folder
    page = [] if "--html" in words else ["--html", "x.html"]
    assert main(["inspect", "model", *page, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
