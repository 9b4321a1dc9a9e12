"""Every way of generating that the library offers: the stock model with the same weights, or plain decoding, is the oracle.

Not on a CPU: caches offloaded from a GPU. Contrastive search and DoLa are code on the Hub since Transformers 5.
"""

import copy
import functools
import shutil

import pytest
import torch
from test_model import DIALECTS, MODERN_DIALECT, V, both_dialects, differ, make_model, some_ids
from transformers import (
    CompileConfig,
    ContinuousBatchingConfig,
    DynamicCache,
    GenerationConfig,
    TextIteratorStreamer,
)

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM, TrainingArguments
from tinygpt_hf.model.conversion import to_stock
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer
from tinygpt_hf.training import adapters, compilation

NEW = 12
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
SAMPLE = GREEDY | {"do_sample": True}
MODES = {
    "greedy": GREEDY,
    "greedy with penalties": GREEDY | {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    "greedy, some tokens never": GREEDY | {"bad_words_ids": [[3], [5, 6]], "suppress_tokens": [30, 18]},
    "greedy, some tokens rather": GREEDY | {"sequence_bias": [[[7], 3.0]], "forced_eos_token_id": 4},
    "greedy, ends held back, then drawn near": GREEDY
    | {"eos_token_id": [18, 30], "min_new_tokens": 4, "exponential_decay_length_penalty": (6, 1.5)},
    "guided away from a negative prompt": GREEDY | {"guidance_scale": 1.5},
    "greedy, prompt in chunks": GREEDY | {"prefill_chunk_size": 2},
    "greedy, static cache": GREEDY | {"cache_implementation": "static"},
    "sample": SAMPLE,
    "sample, three of each": SAMPLE | {"num_return_sequences": 3},
    "sample with top_k, top_p, temperature": SAMPLE | {"top_k": 7, "top_p": 0.8, "temperature": 1.3},
    "sample with min_p": SAMPLE | {"min_p": 0.05},
    "sample with top_h": SAMPLE | {"top_h": 0.5},
    "sample with typical_p": SAMPLE | {"typical_p": 0.5, "renormalize_logits": True},
    "sample with cutoffs": SAMPLE | {"epsilon_cutoff": 0.01, "eta_cutoff": 0.01},
    "sample with a watermark": SAMPLE | {"watermarking_config": {"bias": 2.5, "seeding_scheme": "selfhash"}},
    "beam": GREEDY | {"num_beams": 3},
    "beam, two of each": GREEDY
    | {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0, "early_stopping": True, "eos_token_id": 18},
    "beam sample": SAMPLE | {"num_beams": 3},
}


def padded_prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """Return three prompts of 3, 6 and 5 tokens, padded on the left."""
    ids = some_ids(3, 6)
    mask = torch.ones_like(ids)
    mask[0, :3] = mask[2, :1] = 0
    return ids.masked_fill(mask == 0, 0), mask


def seeded(model, ids: torch.Tensor, **options):
    torch.manual_seed(5)
    return model.generate(ids, **options)


# --- the modes of generate()


@pytest.mark.parametrize(("number", "mode"), enumerate(MODES), ids=MODES)
def test_tokens_are_those_of_the_stock_model(number, mode):
    """Test each mode with one of the dialects, in turn; selection does not depend on the dialect."""
    dialect = list(DIALECTS)[number % 2]
    ours = make_model(DIALECTS[dialect], "sdpa")
    stock = to_stock(ours)
    ids, mask = padded_prompts()
    tokens = seeded(ours, ids, attention_mask=mask, **MODES[mode])
    assert torch.equal(tokens, seeded(stock, ids, attention_mask=mask, **MODES[mode]))
    assert len(tokens[:, 6:].unique()) > 5  # not one token for ever
    if "static" not in mode and "chunks" not in mode:
        assert torch.equal(tokens, seeded(ours, ids, attention_mask=mask, **MODES[mode] | {"use_cache": False}))


@pytest.mark.parametrize("options", [GREEDY, GREEDY | {"num_beams": 3}], ids=["greedy", "beam"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@both_dialects
def test_a_padded_batch_gives_each_prompt_what_it_gets_alone(dialect, attention, options):
    model = make_model(DIALECTS[dialect], attention)
    ids, mask = padded_prompts()
    batch = model.generate(ids, attention_mask=mask, **options)
    for row, seen, tokens in zip(ids, mask.bool(), batch, strict=True):
        assert torch.equal(model.generate(row[seen][None], **options)[0, seen.sum() :], tokens[6:])


@both_dialects
def test_the_logits_of_each_step_are_those_of_one_forward(dialect):
    model = make_model(DIALECTS[dialect], "sdpa")
    ids, widths = some_ids(2, 6), []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape[1]))
    output = model.generate(ids, output_logits=True, output_scores=True, return_dict_in_generate=True, **GREEDY)
    hook.remove()
    assert widths == [1] * NEW  # the head never sees the prompt but its last token: logits_to_keep
    full = model(output.sequences).logits
    assert differ(torch.stack(output.logits, dim=1), full[:, 5:-1]) < 1e-5
    new = output.sequences[:, 6:]
    expected = full[:, 5:-1].log_softmax(-1).gather(-1, new[..., None])[..., 0]
    assert (
        differ(model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True), expected) < 1e-5
    )


@both_dialects
def test_a_conversation_continues_from_its_cache_and_from_embeddings(dialect):
    model, ids = make_model(DIALECTS[dialect], "sdpa"), some_ids(1, 6)
    cache = DynamicCache(config=model.config)
    first = model.generate(ids, past_key_values=cache, **GREEDY)
    assert cache.get_seq_length() == 6 + NEW - 1
    prompt = torch.cat((first, some_ids(1, 4)), dim=1)
    seen = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    again = model.generate(prompt, past_key_values=cache, **GREEDY)
    hook.remove()
    assert seen[0] == 5  # the last token of the first answer, which no step has read, and the new ones
    assert torch.equal(again, model.generate(prompt, **GREEDY))
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, **GREEDY), first[:, 6:])


@both_dialects
def test_text_stops_at_a_string_and_streams(dialect, tiny_tokenizer):
    model = make_model(DIALECTS[dialect] | {"vocab_size": len(tiny_tokenizer)}, "sdpa")
    ids = tiny_tokenizer("One day a small dog", return_tensors="pt")["input_ids"]
    full = model.generate(ids, **GREEDY)[0, ids.shape[1] :]
    stop = tiny_tokenizer.decode(full[4])
    cut = model.generate(ids, stop_strings=[stop], tokenizer=tiny_tokenizer, **GREEDY)[0, ids.shape[1] :]
    assert stop in tiny_tokenizer.decode(cut) and stop not in tiny_tokenizer.decode(cut[:-1]) and len(cut) <= 5
    streamer = TextIteratorStreamer(tiny_tokenizer, skip_prompt=True)
    model.generate(ids, streamer=streamer, **GREEDY)
    assert "".join(streamer) == tiny_tokenizer.decode(full)


# --- drafts


def small_model(vocab_size: int = V) -> TinyGPTForCausalLM:
    torch.manual_seed(7)
    config = TinyGPTConfig(vocab_size=vocab_size, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    return TinyGPTForCausalLM(config).eval()


@pytest.mark.parametrize("drafter", ["a small model", "the model itself", "its first layer", "the prompt"])
@both_dialects
def test_a_draft_changes_the_work_but_not_a_token(dialect, drafter):
    model = make_model(DIALECTS[dialect], "sdpa")
    ids = some_ids(1, 6).repeat(1, 2)
    options = {
        "a small model": {"assistant_model": small_model()},
        "the model itself": {"assistant_model": copy.deepcopy(model)},
        "its first layer": {"assistant_early_exit": 1},
        "the prompt": {"prompt_lookup_num_tokens": 3},
    }[drafter]
    plain = model.generate(ids, **GREEDY)
    forwards = []
    hook = model.register_forward_hook(lambda *_: forwards.append(1))
    assert torch.equal(model.generate(ids, **options, **GREEDY), plain)
    hook.remove()
    if drafter == "the model itself":
        assert len(forwards) < NEW  # every draft is taken, so several tokens come out of one forward
    if (dialect, drafter) != ("gpt2", "its first layer"):  # stock GPT-2 cannot leave early
        assert torch.equal(seeded(model, ids, **options, **SAMPLE), seeded(to_stock(model), ids, **options, **SAMPLE))


def test_a_draft_may_come_from_another_tokenizer(tiny_tokenizer, tiny_text):
    model = make_model(MODERN_DIALECT | {"vocab_size": len(tiny_tokenizer)}, "sdpa")
    other = train_tokenizer([tiny_text], "byte")
    ids = tiny_tokenizer("Pip took the ball", return_tensors="pt")["input_ids"]
    drafts = {"assistant_model": small_model(len(other)), "tokenizer": tiny_tokenizer, "assistant_tokenizer": other}
    assert torch.equal(model.generate(ids, **drafts, **GREEDY), model.generate(ids, **GREEDY))


# --- many requests at once


def paged(**options) -> ContinuousBatchingConfig:
    """Limit the cache to 16 pages of 8 tokens; by default, Transformers takes most of the memory."""
    return ContinuousBatchingConfig(num_blocks=16, page_size=8, max_memory_percent=0.01, **options)


@pytest.mark.parametrize(
    ("attention", "max_batch_tokens"), [("sdpa", 7), ("eager", 64)], ids=["prompts in parts", "roomy"]
)
@both_dialects
def test_continuous_batching_gives_each_request_what_it_gets_alone(dialect, attention, max_batch_tokens):
    model = make_model(DIALECTS[dialect], attention)
    prompts = [some_ids(1, 13)[0].tolist(), some_ids(1, 4)[0].tolist(), some_ids(3, 9)[2].tolist()]
    config = GenerationConfig(**GREEDY, eos_token_id=-1)
    batching = paged(max_batch_tokens=max_batch_tokens)
    outputs = model.generate_batch(prompts, config, continuous_batching_config=batching, progress_bar=False)
    alone = [model.generate(torch.tensor([prompt]), **GREEDY)[0, len(prompt) :].tolist() for prompt in prompts]
    assert [output.generated_tokens for output in outputs.values()] == alone


# --- attention and caches


@both_dialects
@torch.no_grad()
def test_flex_attention_computes_the_same(dialect):
    """Compare flex attention with SDPA, uncompiled: compiling a kernel takes half a minute."""
    plain, flex = make_model(DIALECTS[dialect], "sdpa"), make_model(DIALECTS[dialect], "flex_attention")
    ids, mask = padded_prompts()
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]]).expand(3, -1)
    with torch.compiler.set_stance("force_eager"):
        assert differ(flex(ids).logits, plain(ids).logits) < 1e-5
        seen, options = mask.bool(), {"attention_mask": mask}
        assert differ(flex(ids, **options).logits[seen], plain(ids, **options).logits[seen]) < 1e-5
        packed = {"position_ids": positions, "use_cache": False}
        assert differ(flex(ids, **packed).logits, plain(ids, **packed).logits) < 1e-5
        assert torch.equal(flex.generate(ids, **options, **GREEDY), plain.generate(ids, **options, **GREEDY))


# --- compiled


def compiled_step(model, backend: str) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Return tokens with and without a compiled step over a static cache, and the compiler's counters."""
    from torch._dynamo.utils import counters

    ids, mask = padded_prompts()
    plain = model.generate(ids, attention_mask=mask, **GREEDY)
    compiling = CompileConfig(fullgraph=True, backend=backend, mode="default")
    compiling._compile_all_devices = True  # by itself the library compiles on accelerators only
    torch.compiler.reset()
    counters.clear()
    options = GREEDY | {"cache_implementation": "static", "compile_config": compiling}
    return plain, model.generate(ids, attention_mask=mask, **options), {k: dict(v) for k, v in counters.items()}


@both_dialects
def test_a_step_is_one_graph_traced_once(dialect):
    plain, compiled, counts = compiled_step(make_model(DIALECTS[dialect], "sdpa"), "aot_eager")
    assert torch.equal(compiled, plain)
    assert counts["stats"]["unique_graphs"] == 1 and not counts.get("graph_break")


@pytest.mark.parametrize("how", ["plain", "checkpointing", "document mask", "adapters"])
def test_layers_that_train_share_one_graph(how, monkeypatch):
    """Compile layers as in training: gradients are equal, and evaluations run uncompiled."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model, ids = make_model(MODERN_DIALECT, "sdpa").train(), padded_prompts()[0]
    if how == "checkpointing":
        model.gradient_checkpointing_enable()
    if how == "adapters":
        adapters.attach(model, TrainingArguments(lora_r=2), "base", [])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]]).expand(3, -1) if how == "document mask" else None

    def gradient(tokens: int) -> list[torch.Tensor]:
        words = {"num_items_in_batch": tokens, "skip_logits": True, "use_cache": False}
        model.zero_grad()
        model(ids, position_ids=positions, shift_labels=ids, **words).loss.backward()
        return [p.grad * tokens / ids.numel() for p in model.parameters() if p.grad is not None]

    torch.compiler.reset()
    counters.clear()
    plain = gradient(18)
    compilation.set_forward(model.model.layers, compilation.compiled_layer(model.model.layers[0]))
    for tokens in (18, 7):  # how many count differs from step to step
        assert all(differ(one, two) < 1e-5 for one, two in zip(gradient(tokens), plain, strict=True))
    model.eval()
    model.generate(ids, **GREEDY)
    graphs = 2 if how == "adapters" else 1  # nothing below the first layer learns, so it is a kind of its own
    assert counters["stats"]["unique_graphs"] == graphs and not counters.get("graph_break")


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_kernels_compute_the_same(tmp_path, monkeypatch):
    """Compile a step of generate(); nearly all of the time is spent in the C++ compiler."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # other processes race in the shared folder
    plain, compiled, _ = compiled_step(make_model(MODERN_DIALECT | {"num_hidden_layers": 1}, "sdpa"), "inductor")
    assert torch.equal(compiled, plain)
