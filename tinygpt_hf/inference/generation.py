"""Generate text one token at a time, with the probabilities behind each choice.

    model, tokenizer = load_model("runs/quickstart")
    prompt_ids = encode_prompt(tokenizer, "Once upon a time")
    for step in generate_steps(model, tokenizer, prompt_ids, Sampling(temperature=0.8), seed=1):
        print(step.text, end="")                      # step.surprise, step.entropy, step.candidates, step.finish

The probabilities in `step` are those the token was drawn with. Greedy decoding gives the tokens of Transformers'
`model.generate`. Generation stops at an end-of-text token, before a stop string, after `max_new_tokens`, or when the
context is full; the last step's `finish` names the reason.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import torch

from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.inference.engine import Engine, PlainEngine, open_engine
from tinygpt_hf.inference.sampling import Sampling, draw, next_token_distribution, uniform_numbers
from tinygpt_hf.inference.text_stream import StopStrings, TextDecoder
from tinygpt_hf.model.loading import load_model

__all__ = ["Candidate", "Sampling", "Step", "encode_prompt", "generate_steps", "load_model", "sample_text"]

BAR_WIDTH, MOST_BITS = 10, 12  # characters of a full bar in a table, and the bits it stands for
MIN_COLUMNS_FOR_BARS = 64  # a narrower terminal gets a table without bars
FINISH = {  # Step.finish -> message
    "eos": "the model ended its text",
    "stop": "a stop string was generated",
    "length": "max_new_tokens was reached",
    "context": "the model's context is full",
}


def context_length(model) -> int | None:
    """Return the model's context length in tokens, or None if its configuration sets none."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or None


def stop_ids(model, tokenizer) -> set[int]:
    """Return the ids that end a text: those of generation_config.json, the tokenizer's eos, and `<|im_end|>`."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = set(named if isinstance(named, (list, tuple)) else [named])
    ids |= {tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return ids - {None}


@dataclass(frozen=True)
class Candidate:
    """A possible token, with its probability after and before the sampling settings."""

    id: int
    text: str
    probability: float
    model_probability: float


@dataclass(frozen=True)
class GenerationOptions:
    """The options of `generate_rows`. `numbers` gives each prompt its own random stream under `seed` (default: its index)."""

    numbers: Sequence[int] | None = None
    max_new_tokens: int = 200
    stop: list[str] | None = None
    seed: int = 42
    num_candidates: int = 0


@dataclass(frozen=True)
class Step:
    """One generated token.

    `text` is the text that became final with it: empty while a character or a possible stop string is incomplete.
    `probability` is the token's probability after temperature and all filters, `model_probability` before them.
    `surprise` (-log2 of `probability`) and `entropy` (of the filtered distribution) are in bits.
    `id`, `text` and `finish` are always set; the other fields are computed on first access.
    """

    id: int
    text: str
    probability: float
    model_probability: float
    surprise: float
    entropy: float
    candidates: list[Candidate] = field(default_factory=list)
    finish: str | None = None  # on the last step, a key of FINISH

    @classmethod
    def lazy(cls, id: int, text: str, finish: str | None, measure: Callable[[], dict]) -> "Step":
        """Make a step that calls `measure` for its other fields on first access."""
        step = object.__new__(cls)
        step.__dict__.update(id=id, text=text, finish=finish, _measure=measure)
        return step

    @property
    def bits(self) -> float:
        """Surprisal of the token under the model, before the sampling settings."""
        return -math.log2(max(self.model_probability, 1e-300)) + 0.0

    def __getattr__(self, name: str):  # called only for fields not set yet
        measure = self.__dict__.pop("_measure", None)
        if measure is None:
            raise AttributeError(name)
        self.__dict__.update(measure())
        return getattr(self, name)


def check_prompt(text: str) -> None:
    """Raise a `UsageError` if a prompt is empty or not valid UTF-8."""
    if not text:
        raise UsageError("the prompt is empty", "some text to continue", "give --prompt or --prompt_file")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("the prompt is no valid UTF-8", "text", "check the terminal's encoding") from None


def encode_prompt(tokenizer, text: str) -> list[int]:
    """Tokenize a prompt with the tokenizer's start token; control tokens typed in it stay plain text."""
    check_prompt(text)
    ids = tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id and len(ids) > 1 and ids[-1] != tokenizer.bos_token_id:
        ids = ids[:-1]  # the model cannot continue a text that has ended
    if not ids:
        raise UsageError("the prompt has no tokens", "some text to continue", "give another prompt")
    return list(ids)


def room_for_answer(model, prompt_tokens: int) -> int | None:
    """Return how many tokens fit after the prompt, or None without a limit. Raises a `UsageError` if none fits."""
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


def generate_steps(
    model, tokenizer, prompt_ids: list[int], sampling: Sampling, *, number: int = 0, **options
) -> Generator[Step]:
    """Continue `prompt_ids`, yielding one `Step` per token. `number` selects the random stream under the seed.

    Takes the options of `generate_rows`. An `engine` passed to successive calls reuses the cache of a shared prefix.
    """
    for _, step in generate_rows(model, tokenizer, [prompt_ids], sampling, numbers=[number], **options):
        yield step


def generate_rows(
    model,
    tokenizer,
    prompts: list[list[int]],
    sampling: Sampling,
    engine: Engine | PlainEngine | None = None,
    **options,
) -> Generator[tuple[int, Step]]:
    """Continue every prompt, in batches of similar length, yielding (index of the prompt, `Step`) for each token.

    `options` are the fields of `GenerationOptions`. Each prompt has its own random numbers, from `seed` and its number,
    so its text does not depend on the others.
    """
    settings = GenerationOptions(**options)
    sampling.check()
    check_length(settings.max_new_tokens)
    room = [room_for_answer(model, len(ids)) for ids in prompts]
    engine = engine or open_engine(model)
    ends, first_decoder = stop_ids(model, tokenizer), TextDecoder(tokenizer)
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    for start in range(0, len(order), engine.max_batch_size):
        rows = [
            _Row(
                index=k,
                ids=list(prompts[k]),
                room=room[k],
                max_new_tokens=settings.max_new_tokens,
                uniforms=uniform_numbers(settings.seed, settings.numbers[k] if settings.numbers else k),
                decoder=first_decoder.continuing_after(prompts[k][-1]),
                stops=StopStrings(settings.stop or []),
                stop_ids=ends,
            )
            for k in order[start : start + engine.max_batch_size]
        ]
        yield from _batch(engine, rows, sampling, settings.num_candidates)


def _batch(engine, rows: "list[_Row]", sampling: Sampling, num_candidates: int) -> Generator[tuple[int, Step]]:
    """Generate a token for each row in turn; a row that ends leaves the batch."""
    logits = engine.prefill([row.ids for row in rows])  # (B, V)
    seen = None
    if sampling.repetition_penalty != 1.0:
        seen = torch.zeros_like(logits, dtype=torch.bool)
        for own, row in zip(seen, rows, strict=True):
            own[[id for id in row.ids if id < len(own)]] = True
    while True:
        tokens = draw(logits, sampling, [row.uniforms for row in rows], seen)
        for k, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            piece, finish = row.take(token)
            before = None if seen is None else seen[k].clone()
            measure = partial(_measure_step, token, logits[k], sampling, before, num_candidates, row.decoder)
            yield row.index, Step.lazy(token, piece, finish, measure)
        for k in reversed([k for k, row in enumerate(rows) if row.ended]):
            rows[k], tokens[k] = rows[-1], tokens[-1]
            rows.pop(), tokens.pop()
            if seen is not None:
                seen[k] = seen[len(rows)]
            if rows:
                engine.drop_row(k)
        if not rows:
            return
        if seen is not None:
            seen = seen[: len(rows)].scatter_(1, torch.tensor(tokens, device=seen.device)[:, None], True)
        logits = engine.decode(tokens)


@dataclass
class _Row:
    """The state of one text while it is generated. `room` is the number of tokens that fit into the context."""

    index: int
    ids: list[int]
    room: int | None
    max_new_tokens: int
    uniforms: Iterator[float]
    decoder: TextDecoder
    stops: StopStrings
    stop_ids: set[int]
    count: int = 0
    ended: bool = False

    def take(self, token: int) -> tuple[str, str | None]:
        """Add one token; return the text that becomes final and, for the last token, a key of FINISH."""
        self.count += 1
        at_end = token in self.stop_ids
        piece = self.stops.add(self.decoder.flush() if at_end else self.decoder.add(token))
        finish = None
        if self.stops.found is not None:
            finish = "stop"
        elif at_end:
            finish = "eos"
        elif self.count == self.max_new_tokens:
            finish = "length"
        elif self.count == self.room:
            finish = "context"
        if finish and finish != "stop":
            piece += self.stops.add(self.decoder.flush()) + self.stops.flush()
        self.ended = finish is not None
        return piece, finish


def sample_text(model, tokenizer, prompt: str, sampling: Sampling, **options) -> str:
    """Return the continuation of `prompt` as one string; `options` as in `generate_steps`."""
    steps = generate_steps(model, tokenizer, encode_prompt(tokenizer, prompt), sampling, **options)
    return "".join(step.text for step in steps)


def complete_all(model, tokenizer, prompts: list[list[int]], sampling: Sampling, **options) -> list[str]:
    """Return a continuation of each prompt (token ids); `options` as in `generate_rows`.

    A prompt that exceeds the context is cut at its beginning.
    """
    texts = [""] * len(prompts)
    for k, step in generate_rows(model, tokenizer, _cut_to_context(model, prompts), sampling, **options):
        texts[k] += step.text
    return texts


def _cut_to_context(model, prompts: list[list[int]]) -> list[list[int]]:
    longest = (context_length(model) or 2**31) - 1
    return [ids[-longest:] for ids in prompts]


def continue_prompts(model, tokenizer, prompts: list[list[int]], max_new_tokens: int) -> list[dict[str, str]]:
    """Continue the prompts with a fixed seed, so that two calls differ only if the model does."""
    sampling = Sampling(temperature=0.8, top_k=50)
    texts = complete_all(model, tokenizer, prompts, sampling, max_new_tokens=max_new_tokens, seed=0)
    shown = [tokenizer.decode(ids, skip_special_tokens=True) for ids in _cut_to_context(model, prompts)]
    return [{"prompt": prompt, "text": text} for prompt, text in zip(shown, texts, strict=True)]


def step_table(position: int, step: Step) -> str:
    """Format one step for `--show_steps`: its candidates with their probabilities, the token drawn marked."""
    head = f"step {position}: surprise {step.surprise:.2f} bits, entropy {step.entropy:.2f} bits"
    if step.finish:
        head += f"; last: {FINISH[step.finish]}"
    lines = [head, f"    chance   model alone   {'':{BAR_WIDTH}} token"]
    for c in step.candidates:
        taken = "  <- taken" if c.id == step.id else ""
        numbers = f"  {c.probability:7.2%}       {c.model_probability:7.2%}   {bar(c.model_probability):{BAR_WIDTH}}"
        lines.append(f"{numbers} {quoted(c.text)}{taken}")
    return "\n".join(lines) + "\n\n"


def steps_table(steps: list[Step], columns: int | None = None) -> str:
    """Format a table with a line per token: its surprisal and the likeliest other tokens that fit into `columns`."""
    from rich.cells import cell_len, set_cell_size

    names = [quoted(next((c.text for c in step.candidates if c.id == step.id), step.text)) for step in steps]
    width = min(max(map(cell_len, names)), 16)
    bar_width = 0 if columns and columns < MIN_COLUMNS_FOR_BARS else BAR_WIDTH
    lines = [f"   #   bits  {'':{bar_width}} model alone  {'token':{width}}  instead"]
    for number, (step, name) in enumerate(zip(steps, names, strict=True), 1):
        drawn_bar = bar(step.bits / MOST_BITS, bar_width)
        numbers = f"{number:4}  {step.bits:5.2f}  {drawn_bar:{bar_width}}     {step.model_probability:7.2%}"
        lines.append(f"{numbers}  {set_cell_size(name, width) if cell_len(name) < width else name} ")
        others = [c for c in step.candidates if c.id != step.id and c.model_probability > 0.005]
        for other in others[:3]:
            words = f" {quoted(other.text)} {other.model_probability:.0%}"
            if cell_len(lines[-1] + words) <= (columns or 1000):
                lines[-1] += words
    return "\n".join(line.rstrip() for line in lines)


def bar(share: float, longest: int = BAR_WIDTH) -> str:
    """Draw a share between 0 and 1 as a bar of at most `longest` characters."""
    return "█" * round(min(share, 1) * longest)


def read_sampling(arguments) -> Sampling:
    """Return the sampling settings of a command's arguments, after checking them and max_new_tokens."""
    sampling = Sampling(**{f.name: getattr(arguments, f.name) for f in fields(Sampling)})
    sampling.check()
    check_length(arguments.max_new_tokens)
    return sampling


def check_length(max_new_tokens: int) -> None:
    """Raise a `UsageError` unless max_new_tokens is at least 1."""
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}", "at least 1", "try 200")


def _measure_step(token, logits, sampling, seen, num_candidates, decoder) -> dict:
    """Compute the measured fields of a `Step` from the logits (V,) its token was drawn from."""
    distribution = next_token_distribution(logits, sampling, seen)  # (V,)
    alone = logits.float().softmax(0)  # (V,) before the sampling settings
    positive = distribution[distribution > 0]
    probability = float(distribution[token])
    candidates = []
    if num_candidates:
        # rank by the filtered probability; many are zero (greedy, top-k) and are ranked by the model's own
        most = min(num_candidates, len(alone))
        either = {*distribution.topk(most).indices.tolist(), *alone.topk(most).indices.tolist()}
        shown = sorted(either, key=lambda i: (-float(distribution[i]), -float(alone[i]), i))[:most]
        if token not in shown:
            shown.append(token)
        candidates = [Candidate(i, decoder.display(i), float(distribution[i]), float(alone[i])) for i in shown]
    return {
        "probability": probability,
        "model_probability": float(alone[token]),
        "surprise": -math.log2(probability) + 0.0,  # + 0.0: certainty is 0, not -0
        "entropy": float(-(positive.double() * positive.double().log2()).sum()) + 0.0,
        "candidates": candidates,
    }


def quoted(text: str) -> str:
    """Return a token in quotes, with unprintable characters escaped."""
    return f"'{printable(text)}'"
