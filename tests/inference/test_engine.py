"""Compare Engine with PlainEngine for all architectures, batches, sampling settings and states of the cache."""

import gc
import weakref

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.inference import engine as engines
from tinygpt_hf.inference import sampling as samplings
from tinygpt_hf.inference.engine import Engine, PlainEngine, open_engine
from tinygpt_hf.inference.generation import complete_all, continue_prompts, encode_prompt, generate_rows, generate_steps
from tinygpt_hf.inference.sampling import Sampling
from tinygpt_hf.inference.session import Session
from tinygpt_hf.settings.inference import ChatArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

CONTEXT = 48
TEXT = "the cat sat on the mat, who are you? naïve café 日本語 🙂 "
GPT2 = {
    "position_embedding_type": "learned", "norm_type": "layernorm", "mlp_type": "plain", "attention_bias": True,
    "mlp_bias": True, "qk_norm": False, "rms_norm_eps": 1e-5,
}  # fmt: skip
FORMS = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "gpt2": GPT2,
    "grouped heads": {"num_key_value_heads": 2},
    "one key head, biases": {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
    "wide heads, own head": {"head_dim": 12, "tie_word_embeddings": False},
    "gpt2 with head norms and groups": GPT2 | {"qk_norm": True, "num_key_value_heads": 2},
    "rope with layer norms": {"norm_type": "layernorm", "mlp_type": "plain", "hidden_act": "relu"},
    "learned places, RMS": {"position_embedding_type": "learned", "hidden_act": "gelu_pytorch_tanh"},
    "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    "no layers": {"num_hidden_layers": 0},
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT * 20], "bpe", vocab_size=300)


def made(form: dict, vocab_size: int = 300) -> TinyGPTForCausalLM:
    """Return a model with large random weights, in which every bias and norm has an effect."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}
    config = TinyGPTConfig(**shape | form, vocab_size=vocab_size, initializer_range=0.2, bos_token_id=0, eos_token_id=0)
    model = TinyGPTForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.add_(torch.randn(weight.shape) * 0.2)
    return model


@pytest.fixture(params=FORMS, name="model")
def each_form(request, tokenizer):
    return made(FORMS[request.param], len(tokenizer))


def true_logits(model, rows: list[list[int]], dtype=torch.float64) -> torch.Tensor:
    """Return the logits (B, V) of the model's own forward, row by row."""
    double = TinyGPTForCausalLM(model.config).eval()
    double.load_state_dict(model.state_dict())
    double.to(dtype)
    with torch.no_grad():
        return torch.cat([double(torch.tensor([ids]), use_cache=False).logits[:, -1] for ids in rows])


ROWS = [[5, 6, 7, 8, 9], [10], [20, 21, 22, 23, 24, 25, 26, 27], [30, 31]]


def test_logits_are_the_models_within_rounding_in_batches_that_shrink_over_a_cache_that_grows(model, monkeypatch):
    monkeypatch.setattr(engines, "CACHE_STEP", 3)
    engine = open_engine(model)
    assert isinstance(engine, Engine)
    rows = [list(ids) for ids in ROWS]
    found = engine.prefill(rows)
    for token in range(40, 60):
        wanted = true_logits(model, rows)
        # the plain path in float32 is off by as much: a few units in the last place of the largest logit
        assert (found - wanted).abs().max() < 3e-6 * wanted.abs().max()
        if token in (45, 50):
            row = 0 if token == 45 else len(rows) - 1
            rows[row] = rows[-1]
            rows.pop()
            engine.drop_row(row)
        tokens = [token + k for k in range(len(rows))]
        found = engine.decode(tokens)
        rows = [ids + [own] for ids, own in zip(rows, tokens, strict=True)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["qwen3", "llama", "gpt2", "gpt2 with head norms and groups"])
def test_half_precision_errors_are_as_small_as_those_of_the_plain_engine(form, dtype):
    model = made(FORMS[form])
    model.load_state_dict({name: weight.to(dtype).float() for name, weight in model.state_dict().items()})
    half = made(FORMS[form]).to(dtype)
    half.load_state_dict(model.state_dict())
    engine, rows = open_engine(half), [list(ids) for ids in ROWS]
    found = [engine.prefill(rows)]
    for token in range(40, 50):
        found.append(engine.decode([token] * len(rows)))
    errors = {"engine": 0.0, "plain": 0.0}
    for count, logits in enumerate(found):
        read = [ids + list(range(40, 40 + count)) for ids in rows]
        wanted = true_logits(model, read)
        errors["engine"] += (logits - wanted).square().mean().item()
        errors["plain"] += (true_logits(half, read, dtype) - wanted).square().mean().item()
    assert 0 < errors["engine"] < 1.5 * errors["plain"]


SETTINGS = [
    Sampling(temperature=0),
    Sampling(temperature=0, repetition_penalty=1.4),
    Sampling(),
    Sampling(temperature=0.8, top_k=5),
    Sampling(temperature=1.3, top_p=0.8, min_p=0.02),
    Sampling(temperature=0.9, top_k=50, top_p=0.95, repetition_penalty=1.2),
]


def texts(model, tokenizer, prompts, sampling, **options) -> list[tuple[list[int], str, str]]:
    """Return (tokens, text, reason of the end) for each prompt."""
    found = [([], [], []) for _ in prompts]
    for k, step in generate_rows(model, tokenizer, prompts, sampling, **options):
        found[k][0].append(step.id)
        found[k][1].append(step.text)
        found[k][2].append(step.finish)
    for _, _, ends in found:
        assert ends[-1] and not any(ends[:-1])
    return [(ids, "".join(pieces), ends[-1]) for ids, pieces, ends in found]


@pytest.mark.parametrize(
    ("form", "sampling"),
    [("qwen3", sampling) for sampling in SETTINGS]
    + [(form, sampling) for form in FORMS if form != "qwen3" for sampling in (SETTINGS[0], SETTINGS[-1])],
    ids=str,
)
def test_texts_equal_those_of_the_plain_engine_in_any_batch(tokenizer, form, sampling, monkeypatch):
    monkeypatch.setattr(engines, "CACHE_STEP", 16)
    model = made(FORMS[form], len(tokenizer))
    prompts = [encode_prompt(tokenizer, text) for text in ("the cat", "日本", "naïve café", "on", "the cat", TEXT[:30])]
    prompts.append([50] * (CONTEXT - 3))  # its context is full before the others'
    options = {"max_new_tokens": 12, "stop": ["t s", "é"], "seed": 3}
    wanted = texts(model, tokenizer, prompts, sampling, engine=PlainEngine(model), **options)
    assert texts(model, tokenizer, prompts, sampling, **options) == wanted
    assert wanted[-1][2] in ("context", "eos", "stop")
    monkeypatch.setattr(Engine, "max_batch_size", 3)
    assert texts(model, tokenizer, prompts, sampling, **options) == wanted
    for number, ids in enumerate(prompts):
        steps = list(generate_steps(model, tokenizer, ids, sampling, number=number, **options))
        assert [step.id for step in steps] == wanted[number][0]
    same = texts(model, tokenizer, [prompts[0]] * 4, sampling, **options)  # is read once
    assert same == texts(model, tokenizer, [prompts[0]] * 4, sampling, engine=PlainEngine(model), **options)


def test_texts_end_for_every_reason(tokenizer):
    model = made({}, len(tokenizer))
    model.generation_config.eos_token_id = list(range(0, 300, 20))
    prompts = [encode_prompt(tokenizer, text) for text in ("the cat", "on", "who are", "mat")] + [[50] * (CONTEXT - 3)]
    ends = {
        end
        for seed in range(8)
        for _, _, end in texts(model, tokenizer, prompts, Sampling(), seed=seed, stop=["e"], max_new_tokens=25)
    }
    assert ends == {"eos", "stop", "length", "context"}


@pytest.mark.parametrize("form", ["qwen3", "gpt2"])
@pytest.mark.parametrize("chats", [True, False])
def test_conversations_with_retry_undo_and_a_full_context_equal_those_of_the_plain_engine(tokenizer, form, chats):
    model = made(FORMS[form] | {"max_position_embeddings": 96}, len(tokenizer))
    talks = {}
    for kind in (Engine, PlainEngine):
        talker = Session(model, tokenizer, ChatArguments(seed=1, max_new_tokens=12, temperature=0.9), chats)
        talker._engine, heard = kind(model), []
        for text in ("the cat", "the mat", "RETRY", "who are you?", "UNDO", "naïve", "the cat sat on the mat", "RETRY"):
            if text == "UNDO":
                talker.undo()
                continue
            steps = talker.retry() if text == "RETRY" else talker.ask(text)
            if text == "naïve":
                next(steps)  # broken off
                steps.close()
            heard.append([(step.id, step.text) for step in steps])
        talks[kind] = heard, talker.messages, talker.forgotten
        assert not chats or talker.forgotten
    assert talks[Engine] == talks[PlainEngine]


def test_a_prompt_is_read_in_one_pass_and_its_cached_prefix_is_not_read_again(monkeypatch):
    engine, read = Engine(made({})), []
    forward = engine._forward
    monkeypatch.setattr(engine, "_forward", lambda ids: read.append(tuple(ids.shape)) or forward(ids))
    engine.prefill([[5, 6, 7, 8]])
    engine.decode([9])
    found = engine.prefill([[5, 6, 7, 8, 9, 10, 11]])
    assert read == [(1, 4), (1, 1), (1, 2)]
    assert torch.allclose(found, Engine(made({})).prefill([[5, 6, 7, 8, 9, 10, 11]]), atol=1e-5)
    engine.prefill([[5, 6, 9, 9]])  # a retry, say
    engine.prefill([[5, 6, 9, 9]])
    engine.prefill([[40, 6, 9]])
    engine.prefill([[40, 6, 9]] * 3)
    engine.prefill([[40, 6, 9], [1]])
    assert read[3:] == [(1, 2), (1, 1), (1, 3), (1, 1), (2, 3)]


def test_only_an_unmodified_tinygpt_gets_the_fast_engine(tokenizer):
    from peft import LoraConfig, get_peft_model

    assert isinstance(open_engine(made({})), Engine)
    hooked, outside, wrapped = made({}), made({}), get_peft_model(made({}), LoraConfig(target_modules="all-linear"))
    hooked.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    outside.set_attn_implementation("flex_attention")
    dynamic = made({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}})
    stock = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_layer=1, n_head=2, n_embd=8, n_positions=CONTEXT))
    for model in (hooked, outside, dynamic, wrapped, wrapped.base_model.model, stock):
        assert isinstance(open_engine(model), PlainEngine)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantized_model_generates_with_its_own_forward(tokenizer, quantization):
    from tinygpt_hf.inference.quantization import quantized

    model = quantized(made({"intermediate_size": 64}, len(tokenizer)), quantization)
    assert isinstance(open_engine(model), PlainEngine)
    ids, options = encode_prompt(tokenizer, "the cat"), {"do_sample": False, "max_new_tokens": 10, "pad_token_id": 1}
    wanted = model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist()
    assert [step.id for step in generate_steps(model, tokenizer, ids, SETTINGS[0], max_new_tokens=10)] == wanted


def tensors(thing, seen: set) -> int:
    """Count the bytes of all tensors reachable from an object."""
    if isinstance(thing, torch.Tensor):
        place = thing.untyped_storage().data_ptr()
        size = 0 if place in seen else thing.untyped_storage().nbytes()
        seen.add(place)
        return size
    parts = thing if isinstance(thing, (list, tuple)) else getattr(thing, "__dict__", {}).values()
    return sum(tensors(part, seen) for part in parts if not isinstance(part, torch.nn.Module))


@pytest.mark.parametrize("form", ["qwen3", "gpt2", "wide heads, own head"])
def test_an_engine_holds_one_copy_of_the_weights_and_is_freed_with_its_owner(form, tokenizer):
    model = made(FORMS[form] | {"hidden_size": 128, "max_position_embeddings": 16}, len(tokenizer))
    own = {weight.data_ptr(): weight.nbytes for weight in model.parameters()}
    more = tensors(Engine(model), set(own))
    assert 0.5 * sum(own.values()) < more < 1.02 * sum(own.values())
    talker = Session(model, tokenizer, ChatArguments(max_new_tokens=3), chats=False)
    list(talker.ask("the"))
    watched = [weakref.ref(model), weakref.ref(talker._engine)]
    del model, talker
    gc.collect()
    assert [watch() for watch in watched] == [None, None]


def test_an_engine_made_for_each_text_sees_what_training_changed(tokenizer):
    model = made({}, len(tokenizer))
    prompts = [encode_prompt(tokenizer, "the cat"), encode_prompt(tokenizer, "on")]
    before = continue_prompts(model, tokenizer, prompts, 10)
    assert continue_prompts(model, tokenizer, prompts, 10) == before
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    assert continue_prompts(model, tokenizer, prompts, 10) != before


def test_measures_of_a_step_are_computed_on_access(tokenizer, monkeypatch):
    model, ids, asked = made({}, len(tokenizer)), encode_prompt(tokenizer, "the cat"), []
    compute = samplings.next_token_distribution
    monkeypatch.setattr(
        "tinygpt_hf.inference.generation.next_token_distribution", lambda *all: asked.append(1) or compute(*all)
    )
    sampling = Sampling(temperature=0.9, repetition_penalty=1.3)
    steps = list(generate_steps(model, tokenizer, ids, sampling, max_new_tokens=6, num_candidates=4))
    assert "".join(step.text for step in steps) and not asked
    for place, step in reversed(list(enumerate(steps))):  # long after the engine went on
        taken = ids + [one.id for one in steps[:place]]
        wanted = compute(true_logits(model, [taken], torch.float32)[0], sampling, taken)
        assert step.probability == pytest.approx(float(wanted[step.id]), rel=1e-3)
        assert len(step.candidates) in (4, 5) and step.surprise > 0 and len(asked) == len(steps) - place
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(steps[0], "nonsense")  # noqa: B009


def test_random_numbers_depend_on_the_seed_alone(tokenizer):
    model = made({}, len(tokenizer))
    prompts = [encode_prompt(tokenizer, "the"), encode_prompt(tokenizer, "who are")]
    made_texts = [
        complete_all(model, tokenizer, prompts, Sampling(), max_new_tokens=8, seed=seed) for seed in (1, 1, 2)
    ]
    torch.manual_seed(99)
    again = complete_all(model, tokenizer, prompts, Sampling(), max_new_tokens=8, seed=1)
    assert made_texts[0] == made_texts[1] == again and made_texts[0] != made_texts[2]
