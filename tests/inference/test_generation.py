"""Test generation: Transformers' greedy tokens, steps with the true probabilities, repeatable seeds, reasons to stop."""

import json
import math
import re

import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.inference.generation import check_prompt, encode_prompt, generate_steps, sample_text
from tinygpt_hf.inference.samples import generate
from tinygpt_hf.inference.sampling import Sampling, next_token_distribution
from tinygpt_hf.inference.terminal import NOTE, safe_text
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.inference import GenerateArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

CONTEXT = 48
TEXT = "the cat sat on the mat, naïve café 日本語 🙂 e\u0301 "


def opinionated(model):
    """Return a model with large random weights, whose predictions are far from uniform."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT * 20], "bpe", vocab_size=300)


@pytest.fixture(scope="module", params=["gpt2", "qwen3"])
def model(request, tokenizer):
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": len(tokenizer)}
    if request.param == "gpt2":
        shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": CONTEXT}
        return opinionated(GPT2LMHeadModel(GPT2Config(**shape, **ends)))
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    shape |= {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": CONTEXT}
    return opinionated(Qwen3ForCausalLM(Qwen3Config(**shape, **ends)))


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    opinionated(GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


GREEDY = Sampling(temperature=0)


def test_greedy_tokens_equal_the_librarys(model, tokenizer):
    for prompt in ("the cat", "日本", "naïve"):
        ids = encode_prompt(tokenizer, prompt)
        wanted = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=25, pad_token_id=1)[0, len(ids) :]
        found = [step.id for step in generate_steps(model, tokenizer, ids, GREEDY, max_new_tokens=25)]
        assert found == wanted.tolist()


def test_greedy_with_a_repetition_penalty_equals_the_librarys(model, tokenizer):
    ids = encode_prompt(tokenizer, "the cat sat")
    options = {"do_sample": False, "max_new_tokens": 25, "pad_token_id": 1, "repetition_penalty": 1.5}
    wanted = model.generate(torch.tensor([ids]), **options)[0, len(ids) :]
    steps = generate_steps(model, tokenizer, ids, Sampling(temperature=0, repetition_penalty=1.5), max_new_tokens=25)
    assert [step.id for step in steps] == wanted.tolist()


def test_every_step_shows_the_distribution_the_full_forward_gives(model, tokenizer):
    ids, sampling = encode_prompt(tokenizer, "the cat"), Sampling(temperature=0.9, top_k=12)
    so_far = list(ids)
    for step in generate_steps(model, tokenizer, ids, sampling, max_new_tokens=12, num_candidates=12):
        with torch.no_grad():
            logits = model(torch.tensor([so_far]), use_cache=False).logits[0, -1]
        wanted = next_token_distribution(logits, sampling, so_far)
        assert step.probability == pytest.approx(float(wanted[step.id]), rel=1e-3)
        assert step.model_probability == pytest.approx(float(logits.softmax(0)[step.id]), rel=1e-3)
        assert step.surprise == pytest.approx(-math.log2(step.probability))
        entropy = float(torch.distributions.Categorical(wanted).entropy()) / math.log(2)
        assert step.entropy == pytest.approx(entropy, rel=1e-3)
        shown = [c.probability for c in step.candidates]
        assert sum(shown) == pytest.approx(1, abs=1e-5)  # nothing else can be drawn
        assert shown == sorted(shown, reverse=True)
        assert step.id in [c.id for c in step.candidates]
        so_far.append(step.id)


def test_samples_follow_the_shown_distribution(model, tokenizer):
    ids, sampling = encode_prompt(tokenizer, "the"), Sampling(temperature=1.0, top_k=4)
    first = [
        next(iter(generate_steps(model, tokenizer, ids, sampling, seed=seed, num_candidates=4))) for seed in range(200)
    ]
    for candidate in first[0].candidates[:4]:
        share = sum(step.id == candidate.id for step in first) / len(first)
        assert share == pytest.approx(candidate.probability, abs=0.12)


def test_a_seed_repeats_and_seeds_differ(model, tokenizer):
    def text(seed, number=0):
        return sample_text(model, tokenizer, "the cat", Sampling(), seed=seed, number=number, max_new_tokens=20)

    assert text(1) == text(1)
    assert len({text(seed, number) for seed in (1, 2, 3) for number in (0, 1, 2)}) == 9  # seed 1 + 1 is not seed 2


def test_the_global_random_state_is_neither_used_nor_changed(model, tokenizer):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = sample_text(model, tokenizer, "the cat", Sampling(), seed=1, max_new_tokens=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert sample_text(model, tokenizer, "the cat", Sampling(), seed=1, max_new_tokens=5) == first


class Script(torch.nn.Module):
    """A model that predicts given tokens in turn, whatever its input, and has no cache."""

    def __init__(self, tokenizer, ids, context=CONTEXT):
        super().__init__()
        self.embedding = torch.nn.Embedding(len(tokenizer), 1)
        self.config = GPT2Config(vocab_size=len(tokenizer), n_positions=context, bos_token_id=0, eos_token_id=0)
        self.generation_config = None
        self.said, self.ids = 0, ids

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, past_key_values=None, use_cache=None):
        from types import SimpleNamespace

        logits = torch.full((*input_ids.shape, self.config.vocab_size), -1e9)
        logits[0, -1, self.ids[self.said]] = 0
        self.said += 1
        return SimpleNamespace(logits=logits, past_key_values=None)


def said(tokenizer, text, stop=None, **options):
    ids = encode_prompt(tokenizer, text) if isinstance(text, str) else text
    steps = list(generate_steps(Script(tokenizer, ids), tokenizer, [7], Sampling(), stop=stop, **options))
    return [step.text for step in steps], steps[-1].finish


@pytest.mark.parametrize("end", ["<|endoftext|>", "<|im_end|>"])
def test_an_end_token_ends_the_text_and_is_not_part_of_it(tokenizer, end):
    ids = [*encode_prompt(tokenizer, "the cat"), tokenizer.convert_tokens_to_ids(end), 50, 51]
    pieces, finish = said(tokenizer, ids)
    assert ("".join(pieces), finish) == ("the cat", "eos")


def test_an_end_token_named_by_the_model_is_no_text_either(tokenizer):
    ids = encode_prompt(tokenizer, "the cat")
    script = Script(tokenizer, [*ids, tokenizer.convert_tokens_to_ids("!"), 50])
    script.generation_config = GenerationConfig(eos_token_id=[0, tokenizer.convert_tokens_to_ids("!")])
    steps = list(generate_steps(script, tokenizer, [7], Sampling()))
    assert ("".join(step.text for step in steps), steps[-1].finish) == ("the cat", "eos")


def test_a_stop_string_is_never_shown_wherever_the_pieces_cut_it(tokenizer):
    for stop in ("sat", " sat", "t s", "cat sat on", "mat,"):
        pieces, finish = said(tokenizer, TEXT, stop=["never", stop])
        assert ("".join(pieces), finish) == (TEXT[: TEXT.index(stop)], "stop")


def test_what_only_looked_like_a_stop_string_is_shown(tokenizer):
    pieces, finish = said(tokenizer, [*encode_prompt(tokenizer, "the cat sat"), 0], stop=["sat on"])
    assert ("".join(pieces), finish) == ("the cat sat", "eos")
    length = len(encode_prompt(tokenizer, "the cat sat"))
    pieces, finish = said(tokenizer, "the cat sat", stop=["sat on"], max_new_tokens=length)
    assert ("".join(pieces), finish) == ("the cat sat", "length")


def test_it_stops_where_the_context_is_full(model, tokenizer):
    ids = [50] * (CONTEXT - 5)
    steps = list(generate_steps(model, tokenizer, ids, Sampling(), max_new_tokens=50, seed=3))
    assert steps[-1].finish == "eos" or (len(steps), steps[-1].finish) == (5, "context")
    assert [s.finish for s in generate_steps(model, tokenizer, ids, GREEDY, max_new_tokens=2)][-1] == "length"


def test_a_prompt_that_fills_the_context_is_refused_with_its_size(model, tokenizer):
    with pytest.raises(UsageError, match="the prompt has 60 tokens .* the model's context of 48.*by 13 tokens"):
        next(generate_steps(model, tokenizer, [50] * 60, GREEDY))
    with pytest.raises(UsageError, match="max_new_tokens is 0"):
        next(generate_steps(model, tokenizer, [50], GREEDY, max_new_tokens=0))


def test_nan_logits_are_an_error(tokenizer, model):
    class Broken(Script):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * math.nan
            return output

    with pytest.raises(RunError, match="no numbers"):
        next(generate_steps(Broken(tokenizer, [5]), tokenizer, [7], Sampling()))


def test_control_tokens_typed_in_a_prompt_stay_text(tokenizer):
    for special in tokenizer.all_special_tokens:
        ids = encode_prompt(tokenizer, f"hi {special} there")
        assert not set(ids) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(ids) == f"hi {special} there"


def test_a_model_can_be_trained_after_sampling(model, tokenizer):
    sample_text(model, tokenizer, "the", Sampling(), max_new_tokens=3)
    model(torch.tensor([[5, 6]]), labels=torch.tensor([[5, 6]])).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())
    model.zero_grad()


def run(folder, write=None, **options):
    written = []
    samples = generate(GenerateArguments(model=str(folder), **options), write or written.append)
    return samples, "".join(written)


def test_the_command_streams_prompt_and_continuation(folder, tmp_path):
    options = {"prompt": "the cat", "max_new_tokens": 12, "seed": 4}
    (sample,), shown = run(folder, **options, output_file=str(tmp_path / "out.txt"))
    assert sample.startswith("the cat") and len(sample) > len("the cat")
    assert (tmp_path / "out.txt").read_bytes().decode() == sample
    assert run(folder, **options)[0] == [sample]
    assert run(folder, **options, stream=False)[1] == shown
    (tmp_path / "prompt.txt").write_text("the cat", encoding="utf-8")
    assert run(folder, **(options | {"prompt": None}), prompt_file=str(tmp_path / "prompt.txt"))[0] == [sample]


def test_several_samples_differ_and_the_first_is_the_single_one(folder, tmp_path):
    options = {"prompt": "the cat", "max_new_tokens": 12, "output_file": str(tmp_path / "out.txt")}
    samples, shown = run(folder, **options, num_return_sequences=3)
    assert len(set(samples)) == 3
    assert all(f"--- sample {n} of 3 ---" in shown for n in (1, 2, 3))
    assert all(sample in (tmp_path / "out.txt").read_bytes().decode() for sample in samples)
    assert run(folder, **options)[0] == samples[:1]


def test_show_steps_prints_chances_surprise_and_entropy(folder):
    _, shown = run(folder, prompt="the cat", max_new_tokens=3, show_steps=True, show_candidates=4, temperature=0.5)
    model, tokenizer = load_model(str(folder))
    sampling = Sampling(temperature=0.5, top_k=50)
    ids = encode_prompt(tokenizer, "the cat")
    for position, step in enumerate(generate_steps(model, tokenizer, ids, sampling, max_new_tokens=3), 1):
        assert f"step {position}: surprise {step.surprise:.2f} bits, entropy {step.entropy:.2f} bits" in shown
        assert f"{step.probability:7.2%}       {step.model_probability:7.2%}" in shown
    assert shown.count("<- taken") == 3
    assert "last: max_new_tokens was reached" in shown


def test_an_explained_text_has_the_bits_of_each_token_behind_it(folder, tmp_path):
    options = {"prompt": "the cat", "max_new_tokens": 8, "output_file": str(tmp_path / "out.txt")}
    (sample,), plain = run(folder, **options)
    (again,), shown = run(folder, **options, explain=True)
    assert again == sample == (tmp_path / "out.txt").read_bytes().decode()
    assert re.search("[₀-₉]", shown) and re.sub("[₀-₉↵]", "", shown) == plain + f"[{NOTE}]\n"
    assert run(folder, **options, explain=True, stream=False)[1] == shown


def test_greedy_steps_show_the_models_own_probabilities(folder):
    _, shown = run(folder, prompt="the cat", max_new_tokens=1, show_steps=True, show_candidates=3, temperature=0)
    assert "surprise 0.00 bits, entropy 0.00 bits" in shown
    chances = [line.split()[:2] for line in shown.splitlines() if line.count("%") == 2]
    assert [chance for chance, _ in chances] == ["100.00%", "0.00%", "0.00%"]
    assert all(float(alone[:-1]) > 0 for _, alone in chances)


def test_control_characters_are_replaced_on_a_terminal_but_not_in_a_file(folder, tmp_path):
    options = {"prompt": "\x1b[31mthe", "max_new_tokens": 2, "output_file": str(tmp_path / "out.txt")}
    assert run(folder, **options)[1].startswith("␛[31mthe")
    assert (tmp_path / "out.txt").read_bytes().startswith(b"\x1b[31mthe")
    written = []
    generate(GenerateArguments(model=str(folder), **options), written.append, to_terminal=False)
    assert "".join(written).startswith("\x1b[31mthe")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "the prompt is empty .* Give --prompt or --prompt_file"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "a", "prompt_file": "b"}, "both given"),
        ({"prompt_file": "no/such/file"}, "--prompt_file no/such/file cannot be read"),
        ({"prompt": "the cat " * 50}, "the prompt has .* tokens .* the model's context of 48"),
        ({"prompt": "the", "num_return_sequences": 0}, "--num_return_sequences is 0"),
        ({"prompt": "the", "temperature": -1.0}, "temperature is -1.0"),
        ({"prompt": "the", "output_file": "no/such/folder/out.txt"}, "does not exist"),
        ({"prompt": "bad \udc80 byte"}, "no valid UTF-8"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(folder, options, words):
    def refuse(text):
        raise AssertionError(f"wrote {text!r}")

    with pytest.raises(UsageError, match=words):
        run(folder, refuse, **options)


def test_a_prompt_file_must_be_text(folder, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match=r"latin.txt cannot be read.*\(expected a UTF-8 text file"):
        run(folder, prompt_file=str(tmp_path / "latin.txt"))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match="the prompt is empty"):
        run(folder, prompt_file=str(tmp_path / "empty.txt"))


def test_whitespace_is_a_prompt():
    check_prompt("\n")


def test_a_list_of_prompts_is_answered_line_by_line(folder, tmp_path):
    prompts = ["the cat", "日本 on", "\nwho", "the cat", "s" * 30]
    asked, told = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    asked.write_text(
        "\n".join(json.dumps({"prompt": prompt, "id": 1}) for prompt in prompts) + "\n\n", encoding="utf-8"
    )
    options = {"prompt_file": str(asked), "max_new_tokens": 9, "seed": 4, "num_return_sequences": 2}
    samples, shown = run(folder, **options, output_file=str(told))
    lines = told.read_bytes().decode()
    assert shown == safe_text(lines)
    answers = [json.loads(line) for line in lines.split("\n")[:-1]]
    assert [answer["prompt"] for answer in answers] == [prompt for prompt in prompts for _ in range(2)]
    assert samples == [answer["prompt"] + answer["text"] for answer in answers]
    assert len({answer["text"] for answer in answers}) > 5
    alone, _ = run(folder, prompt="the cat", max_new_tokens=9, seed=4, num_return_sequences=2)
    assert alone == samples[:2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a"}\n["b"]', "line 2 of .*list.jsonl is no"),
        ('{"prompt": ""}', "line 1 of .*list.jsonl is no"),
        ('{"prompt": 3}', "line 1 of"),
        ('{"text": "a"}', "line 1 of"),
        ("a story", "line 1 of"),
        (json.dumps({"prompt": "a\ud800"}), "line 1 of"),
        ("[" * 100_000, "line 1 of"),
        (json.dumps({"prompt": "a"}) + "\n" + json.dumps({"prompt": "the cat " * 50}), "line 2: the prompt has"),
        ("\n \n", "the prompt is empty"),
    ],
)
def test_a_faulty_list_of_prompts_names_the_line_and_writes_nothing(folder, tmp_path, content, words):
    (tmp_path / "list.jsonl").write_text(content, encoding="utf-8")
    options = {"prompt_file": str(tmp_path / "list.jsonl"), "output_file": str(tmp_path / "out.jsonl")}
    with pytest.raises(UsageError, match=words):
        run(folder, **options)
    with pytest.raises(UsageError, match="--show_steps is given" if words.startswith("line 1") else words):
        run(folder, **options, **({"show_steps": True} if words.startswith("line 1") else {}))
    assert not (tmp_path / "out.jsonl").exists()


def test_an_interrupted_command_keeps_the_samples_that_are_done(tokenizer, tmp_path):
    told = tmp_path / "out.txt"
    model = TinyGPTForCausalLM(
        TinyGPTConfig(n_layer=1, n_embd=16, n_head=2, vocab_size=len(tokenizer), n_positions=CONTEXT)
    )
    opinionated(model).save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    options = {"prompt": "the cat", "max_new_tokens": 12, "num_return_sequences": 5, "stop": ["e", "a"]}
    samples, shown = run(tmp_path / "ours", **options)
    assert [shown.index(f"--- sample {k} of 5 ---\n{safe_text(text)}") for k, text in enumerate(samples, 1)] == sorted(
        shown.index(f"--- sample {k} of 5 ---") for k in range(1, 6)
    )  # made together, shown one after another

    def interrupt(text):
        if text.startswith("--- sample 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "ours", interrupt, **options, output_file=str(told))
    kept = told.read_bytes().decode()
    assert kept == "".join(f"--- sample {k} of 5 ---\n{text}\n" for k, text in enumerate(samples[:2], 1))
