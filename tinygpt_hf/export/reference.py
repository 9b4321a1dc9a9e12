"""Write the outputs that an exported model must reproduce: logits, greedy tokens and token ids of the original model.

The folder has two files, computed on the CPU:

    reference.safetensors   ids.<k> (B, T) and logits.<k> (B, K, V): the float64 logits of the last K positions of those ids
    reference.json          rounding: the largest error of the model's float32 logits; tolerance: the largest allowed error;
                            prompts: [[id]] and greedy: [[id]], equally many ids after each prompt, not stopping at the end of
                            text; margins: [[float]], by how much the float64 logit of each greedy id exceeds all others;
                            texts: [str] and token_ids: [[id]], their tokenization;
                            messages and chat: a conversation and its text by the chat template, or both null

The files are deterministic. Since float32 results depend on the processor and the runtime, errors are measured against float64.
An export may have TOLERANCE times the error of the model in float32.
"""

import contextlib
import copy
import random
from pathlib import Path

import torch

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError

GREEDY_TOKENS = 64
LONGEST = 1024  # tokens of the longest probe: GPT-2's context
TOLERANCE = 8  # measured: factors up to 1.4 in other runtimes, at least 75 with a planted bug
KEPT = 16  # positions per probe whose logits are saved, to limit disk space

PROMPTS = ("Once upon a time there was a little", "def f(x):\n\treturn 12345")
TEXTS = (
    "One day Anna found a red ball.",
    "",
    " ",
    "  two  spaces ",
    "\n\n\t tabs\r\n and ends \n",
    "don't I'll we've 'tis",
    "1234567890 1,000.50 3e-4",
    "naïve café cafe\u0301 Ünï",
    "四五六 日本語 한국어 العربية हिन्दी",
    "🎉 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "\u200b\ufeff\u00a0\u2028\u3000x",
    "a" * 40,
    "<|im_start|>user\nhi<|im_end|>\n",
    "a<|endoftext|>b<|pad|>c",
    "{{ 1 }} {% raw %} <s> </s> [INST]",
    "\x00\x07\x1b[0m",
    "___---===***!!!???...",
    "ALLCAPS MixedCase snake_case",
)
MESSAGES = [
    {"role": "user", "content": "Hello! Who are you?"},
    {"role": "assistant", "content": "A small model."},
    {"role": "user", "content": "Tell me a story.\n\n"},
]


@torch.no_grad()
def write_reference(model, tokenizer, folder: Path) -> None:
    """Write the two files into `folder`, from copies of the model in float32 and float64."""
    from safetensors.torch import save_file

    single = copy.deepcopy(model).to("cpu").float().eval()
    context = getattr(model.config, "max_position_embeddings", None) or LONGEST
    rng = random.Random(0)
    shapes = [(3, 24), (1, 1), (2, 5), (1, LONGEST)]
    probes = [
        torch.tensor([_some_ids(model, rng, min(length, context)) for _ in range(rows)]) for rows, length in shapes
    ]
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS] + [_some_ids(model, rng, n) for n in (1, 12)]
    prompts = [(ids or [0])[: max(1, context // 2)] for ids in prompts]
    count = max(1, min(GREEDY_TOKENS, context - max(map(len, prompts))))
    rounded = [_logits(single, ids) for ids in probes]
    if not all(torch.isfinite(logits).all() for logits in rounded):
        raise RunError("the model's logits are not finite: its training diverged or its weights are damaged")
    greedy = [_greedy(single, ids, count) for ids in prompts]

    double = single.double()
    exact = [_logits(double, ids) for ids in probes]
    rounding = max((one - two).abs().max().item() for one, two in zip(rounded, exact, strict=True))
    largest = max(logits.abs().max().item() for logits in exact)
    rounding = max(rounding, torch.finfo(torch.float32).eps * largest)  # for a model whose sums happen to be exact
    tensors = {f"ids.{k}": ids for k, ids in enumerate(probes)} | {f"logits.{k}": one for k, one in enumerate(exact)}
    save_file(tensors, folder / "reference.safetensors")
    chat = _chat(tokenizer)
    storage.write_json(
        folder / "reference.json",
        {
            "rounding": rounding,
            "tolerance": TOLERANCE * rounding,
            "prompts": prompts,
            "greedy": greedy,
            "margins": [_margins(double, *pair) for pair in zip(prompts, greedy, strict=True)],
            "texts": TEXTS,
            "token_ids": [tokenizer(text)["input_ids"] for text in TEXTS],
            "messages": MESSAGES if chat is not None else None,
            "chat": chat,
        },
    )


def _logits(model, ids: torch.Tensor) -> torch.Tensor:
    """Compute the logits (B, K, V) of the last positions of `ids` (B, T)."""
    return model(input_ids=ids, use_cache=False).logits[:, -KEPT:].contiguous()


def _margins(model, prompt: list[int], ids: list[int]) -> list[float]:
    """Compute by how much the logit of each of `ids` after `prompt` exceeds the largest other logit."""
    logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, len(prompt) - 1 : -1]  # (N, V)
    chosen = torch.tensor(ids)[:, None]
    return (logits.gather(1, chosen)[:, 0] - logits.scatter(1, chosen, -torch.inf).amax(dim=1)).tolist()


def _some_ids(model, rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(model.get_input_embeddings().weight.shape[0]) for _ in range(length)]


def _greedy(model, ids: list[int], count: int) -> list[int]:
    """Return `count` greedy ids after `ids`, ignoring the model's generation settings."""
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        return model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)[0, len(ids) :].tolist()
    finally:
        model.generation_config = own


def _chat(tokenizer) -> str | None:
    """Render the conversation with the chat template; return None if there is none or it refuses the messages."""
    from jinja2 import TemplateError

    if tokenizer.chat_template:
        with contextlib.suppress(TemplateError):
            return tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    return None
