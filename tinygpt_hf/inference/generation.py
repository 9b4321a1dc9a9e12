"""Prompt -> stream of text, one token at a time, with everything there is to see about each choice.

    model, tokenizer = load_model("runs/quickstart")
    prompt_ids = encode_prompt(tokenizer, "Once upon a time")
    for step in generate_steps(model, tokenizer, prompt_ids, Sampling(temperature=0.8), seed=1):
        print(step.text, end="")                      # step.surprise, step.entropy, step.candidates, step.finish

The loop is our own, over the model's KV cache: the distribution in `step` is the one the token was drawn from. Greedy
choice gives the tokens of the library's `model.generate`. The text stops at the end-of-text tokens, before a stop
string, after `max_new_tokens`, or where the model's context is full; the last step says which in `finish`.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from tinygpt_hf import storage
from tinygpt_hf.errors import RunError, UsageError, printable
from tinygpt_hf.inference.sampling import Sampling, choose, next_token_distribution, seeded
from tinygpt_hf.inference.terminal import safe_text
from tinygpt_hf.inference.text_stream import StopStrings, TextDecoder
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.inference import GenerateArguments

__all__ = ["Candidate", "Sampling", "Step", "encode_prompt", "generate", "generate_steps", "load_model", "sample_text"]

FINISH = {  # Step.finish -> words
    "eos": "the model ended its text",
    "stop": "a stop string came",
    "length": "max_new_tokens were made",
    "context": "the model's context is full",
}


def context_length(model) -> int | None:
    """How many tokens the model can look at, or None where its configuration sets no bound."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or None


def stop_ids(model, tokenizer) -> set[int]:
    """The tokens that end a text: those of generation_config.json, the tokenizer's end of text, and `<|im_end|>`."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = set(named if isinstance(named, (list, tuple)) else [named])
    ids |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return ids - {None}


@dataclass(frozen=True)
class Candidate:
    """A token that could have been taken: its probability when sampling, and under the model alone."""

    id: int
    text: str
    probability: float
    model_probability: float


@dataclass(frozen=True)
class Step:
    """One token.

    `text` is what became visible with it: nothing while a character or a possible stop string is incomplete.
    `probability` is that of the token in the distribution it was drawn from, after temperature and every filter;
    `surprise` = -log2 of it and `entropy` of that distribution are in bits. `model_probability` is before them.
    """

    id: int
    text: str
    probability: float
    model_probability: float
    surprise: float
    entropy: float
    candidates: list[Candidate] = field(default_factory=list)
    finish: str | None = None  # on the last step, a key of FINISH


def check_prompt(text: str) -> None:
    """Refuse what no model can continue, before one is loaded."""
    if not text:
        raise UsageError("the prompt is empty", "some text to continue", "give --prompt or --prompt_file")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("the prompt is no valid UTF-8", "text", "check the terminal's encoding") from None


def encode_prompt(tokenizer, text: str) -> list[int]:
    """The ids of a prompt, begun as the tokenizer begins every text; control tokens typed in it stay plain text."""
    check_prompt(text)
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id and len(ids) > 1 and ids[-1] != tokenizer.bos_token_id:
        ids = ids[:-1]  # a tokenizer that ends every text would leave nothing to continue
    if not ids:
        raise UsageError("the prompt has no tokens", "some text to continue", "give another prompt")
    return list(ids)


def room_for_answer(model, prompt_tokens: int) -> int | None:
    """How many tokens fit behind the prompt; None: no bound. A prompt that leaves no room is a `UsageError`."""
    context = context_length(model)
    if context is None:
        return None
    if prompt_tokens >= context:
        raise UsageError(
            f"the prompt has {prompt_tokens} tokens",
            f"at most {context - 1}, and one new token, in the model's context of {context}",
            f"shorten the prompt by {prompt_tokens - context + 1} tokens or more",
        )
    return context - prompt_tokens


@torch.no_grad()  # not inference_mode: buffers a model renews in its forward must stay usable in training
def generate_steps(
    model,
    tokenizer,
    prompt_ids: list[int],
    sampling: Sampling,
    *,
    max_new_tokens: int = 200,
    stop: list[str] | None = None,
    seed: int = 42,
    number: int = 0,
    num_candidates: int = 0,
    reader: "Reader | None" = None,
) -> Generator[Step]:
    """Continue `prompt_ids`, a `Step` per token. `number` tells samples (or answers) under one seed apart.

    A `reader` kept from one call to the next spares the model what the two prompts begin with.
    """
    sampling.check()
    check_length(max_new_tokens)
    room = room_for_answer(model, len(prompt_ids))
    last = max_new_tokens if room is None else min(max_new_tokens, room)
    generator = seeded(seed, number)
    decoder = TextDecoder(tokenizer, previous_id=prompt_ids[-1])
    stops, ends = StopStrings(stop or []), stop_ids(model, tokenizer)
    reader = reader or Reader(model)
    ids = list(prompt_ids)
    for position in range(1, last + 1):
        logits = reader(ids)  # (V,)
        distribution = next_token_distribution(logits, sampling, ids)  # (V,)
        if distribution.isnan().any():
            raise RunError("the model's logits are no numbers (NaN): its weights are damaged or its training diverged")
        token = choose(distribution, generator)
        ids.append(token)
        piece = stops.add(decoder.flush() if token in ends else decoder.add(token))  # an end token is never text
        finish = None
        if stops.found is not None:
            finish = "stop"
        elif token in ends:
            finish = "eos"
        elif position == last:
            finish = "length" if last == max_new_tokens else "context"
        if finish and finish != "stop":
            piece += stops.add(decoder.flush()) + stops.flush()
        yield _step(token, piece, finish, logits, distribution, num_candidates, decoder)
        if finish:
            return


def sample_text(model, tokenizer, prompt: str, sampling: Sampling, **options) -> str:
    """The continuation of `prompt` as one string; `options` as in `generate_steps`."""
    steps = generate_steps(model, tokenizer, encode_prompt(tokenizer, prompt), sampling, **options)
    return "".join(step.text for step in steps)


def continue_prompts(model, tokenizer, prompts: list[list[int]], max_new_tokens: int) -> list[dict[str, str]]:
    """Each prompt and how the model goes on, with the same seed every time: only the model changes between two calls."""
    sampling, longest = Sampling(temperature=0.8, top_k=50), (context_length(model) or 2**31) - 1
    samples = []
    for number, ids in enumerate(ids[-longest:] for ids in prompts):
        steps = generate_steps(model, tokenizer, ids, sampling, max_new_tokens=max_new_tokens, seed=0, number=number)
        samples.append(
            {"prompt": tokenizer.decode(ids, skip_special_tokens=True), "text": "".join(step.text for step in steps)}
        )
    return samples


def generate(arguments: GenerateArguments, write: Callable[[str], None], to_terminal: bool = True) -> list[str]:
    """`tinygpt generate`: continue the prompt, handing what is to be shown to `write`; returns the samples.

    What is written passes the terminal filter unless `to_terminal` is false; the output file holds the text itself.
    """
    sampling, prompt = read_sampling(arguments), _read_prompt(arguments)
    for name in ("num_return_sequences", "show_candidates"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} is {getattr(arguments, name)}", "at least 1", f"leave --{name} out")
    if arguments.output_file:
        check_output(Path(arguments.output_file))
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    prompt_ids = encode_prompt(tokenizer, prompt)
    room_for_answer(model, len(prompt_ids))

    show = (lambda text: write(safe_text(text))) if to_terminal else write
    several = arguments.num_return_sequences > 1
    samples = []
    for number in range(arguments.num_return_sequences):
        title = f"--- sample {number + 1} of {arguments.num_return_sequences} ---\n" if several else ""
        write(title)
        streams = arguments.stream and not arguments.show_steps
        if streams:
            show(prompt)
        steps = generate_steps(
            model,
            tokenizer,
            prompt_ids,
            sampling,
            max_new_tokens=arguments.max_new_tokens,
            stop=arguments.stop,
            seed=arguments.seed,
            number=number,
            num_candidates=arguments.show_candidates if arguments.show_steps else 0,
        )
        pieces, finish = [], None
        for position, step in enumerate(steps, 1):
            pieces.append(step.text)
            finish = step.finish
            if arguments.show_steps:
                show(step_table(position, step))
            elif streams:
                show(step.text)
        text = prompt + "".join(pieces)
        if not streams:
            show(text)
        if not text.endswith("\n"):
            write("\n")
        if finish == "context":
            write(f"[stopped: {FINISH[finish]}, {context_length(model)} tokens with the prompt]\n")
        samples.append(text)
        if arguments.output_file:  # after each sample: an interrupted command keeps the finished ones
            storage.write_file(Path(arguments.output_file), _joined(samples, several))
    return samples


def step_table(position: int, step: Step) -> str:
    """What `--show_steps` shows of one step: the candidates as they could be drawn, the one taken marked."""
    head = f"step {position}: surprise {step.surprise:.2f} bits, entropy {step.entropy:.2f} bits"
    if step.finish:
        head += f"; last step: {FINISH[step.finish]}"
    lines = [head, "    chance   model alone   token"]
    for c in step.candidates:
        taken = "  <- taken" if c.id == step.id else ""
        lines.append(f"  {c.probability:7.2%}       {c.model_probability:7.2%}   {quoted(c.text)}{taken}")
    return "\n".join(lines) + "\n\n"


def read_sampling(arguments) -> Sampling:
    """The sampling settings among some command's arguments, checked, and with them its max_new_tokens."""
    sampling = Sampling(**{f.name: getattr(arguments, f.name) for f in fields(Sampling)})
    sampling.check()
    check_length(arguments.max_new_tokens)
    return sampling


def check_length(max_new_tokens: int) -> None:
    """Refuse an answer without a token."""
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}", "at least 1", "try 200")


class Reader:
    """ids -> logits of the next token, feeding the model only what differs from the ids before: its cache knows the rest.

    After other ids the cache is cut back to what they have in common, where every layer keeps all it has seen; a
    sliding window or a recurrent state cannot go back, and those models read everything again.
    """

    def __init__(self, model):
        import inspect

        self._model = model
        self._device = model.get_input_embeddings().weight.device
        known = inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}  # a prompt needs only its last
        self._cache, self._read = None, []  # the ids that the cache holds

    @torch.no_grad()
    def __call__(self, ids: list[int]) -> torch.Tensor:
        from transformers import DynamicCache

        same = _common_start(self._read, ids[:-1])  # the last one is fed in any case: its logits are wanted
        if same < len(self._read) and not self._forget(len(self._read) - same):
            same = 0
        self._read = []  # until the model has finished: it may be interrupted halfway
        if same == 0:
            self._cache = DynamicCache(config=self._model.config)
        new = torch.tensor([ids[same:]], device=self._device)  # (1, T)
        output = self._model(new, past_key_values=self._cache, use_cache=True, **self._options)
        if getattr(output, "past_key_values", None) is not None:  # else it keeps no cache of this kind
            self._read = list(ids)
        return output.logits[0, -1]  # (V,)

    def _forget(self, count: int) -> bool:
        """Take the last `count` tokens out of the cache, where that can be done."""
        from transformers.cache_utils import DynamicLayer

        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            return False
        self._cache.crop(-count)
        return True


def _common_start(one: list[int], other: list[int]) -> int:
    """How many ids two lists begin with in common."""
    if one == other[: len(one)]:  # the usual case: one token more than before
        return len(one)
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _step(token, piece, finish, logits, distribution, num_candidates, decoder) -> Step:
    alone = logits.float().softmax(0)  # (V,) the model's own distribution
    positive = distribution[distribution > 0]
    probability = float(distribution[token])
    candidates = []
    if num_candidates:
        # ranked as drawn from; where that is zero for many (greedy choice, top-k), by the model's own probability
        most = min(num_candidates, len(alone))
        either = {*distribution.topk(most).indices.tolist(), *alone.topk(most).indices.tolist()}
        shown = sorted(either, key=lambda i: (-float(distribution[i]), -float(alone[i]), i))[:most]
        if token not in shown:
            shown.append(token)
        candidates = [Candidate(i, decoder.shown(i), float(distribution[i]), float(alone[i])) for i in shown]
    return Step(
        id=token,
        text=piece,
        probability=probability,
        model_probability=float(alone[token]),
        surprise=-math.log2(probability) + 0.0,  # + 0.0: certainty is 0, not -0
        entropy=float(-(positive.double() * positive.double().log2()).sum()) + 0.0,
        candidates=candidates,
        finish=finish,
    )


def quoted(text: str) -> str:
    """A token between quotes, with the characters a table cannot hold written as escapes."""
    return f"'{printable(text)}'"


def _read_prompt(arguments: GenerateArguments) -> str:
    if arguments.prompt is not None and arguments.prompt_file is not None:
        raise UsageError("--prompt and --prompt_file are both given", "one prompt", "remove one")
    if arguments.prompt_file is not None:
        try:
            prompt = Path(arguments.prompt_file).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"--prompt_file {arguments.prompt_file} cannot be read ({reason})",
                "a UTF-8 text file",
                "check the path and the encoding",
            ) from None
    else:
        prompt = arguments.prompt or ""
    check_prompt(prompt)
    return prompt


def check_output(path: Path) -> None:
    """Refuse an --output_file that cannot be one, before it takes long to fill."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else f"lies in {path.absolute().parent}, which does not exist"
        raise UsageError(f"--output_file {path} {what}", "a file to write", "choose another path")


def _joined(samples: list[str], several: bool) -> str:
    if not several:
        return samples[0]
    return "".join(f"--- sample {n} of {len(samples)} ---\n{text}\n" for n, text in enumerate(samples, 1))
