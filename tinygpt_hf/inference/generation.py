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
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import torch

from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.inference.engine import Engine, PlainEngine, open_engine
from tinygpt_hf.inference.sampling import Sampling, draw, next_token_distribution, seeded
from tinygpt_hf.inference.text_stream import StopStrings, TextDecoder
from tinygpt_hf.model.loading import load_model

__all__ = ["Candidate", "Sampling", "Step", "encode_prompt", "generate_steps", "load_model", "sample_text"]

WIDEST_BAR, MOST_BITS = 10, 12  # signs of a bar in a table, and the bits that fill it
MANY = 64  # columns of a terminal in which a table has room for bars
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
class Answers:
    """How far prompts are continued and what is told of it. `numbers` tell those under one seed apart; default their places."""

    numbers: Sequence[int] | None = None
    max_new_tokens: int = 200
    stop: list[str] | None = None
    seed: int = 42
    num_candidates: int = 0


@dataclass(frozen=True)
class Step:
    """One token.

    `text` is what became visible with it: nothing while a character or a possible stop string is incomplete.
    `probability` is that of the token in the distribution it was drawn from, after temperature and every filter;
    `surprise` = -log2 of it and `entropy` of that distribution are in bits. `model_probability` is before them.
    All but the first two and `finish` are computed when one of them is first asked for.
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
    def unmeasured(cls, id: int, text: str, finish: str | None, measure: Callable[[], dict]) -> "Step":
        """A step whose other fields `measure` will give."""
        step = object.__new__(cls)
        step.__dict__.update(id=id, text=text, finish=finish, _measure=measure)
        return step

    @property
    def bits(self) -> float:
        """The surprisal under the model alone, whatever it was drawn from."""
        return -math.log2(max(self.model_probability, 1e-300)) + 0.0

    def __getattr__(self, name: str):  # only for what is not there yet
        measure = self.__dict__.pop("_measure", None)
        if measure is None:
            raise AttributeError(name)
        self.__dict__.update(measure())
        return getattr(self, name)


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
    ids = tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
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


def generate_steps(
    model, tokenizer, prompt_ids: list[int], sampling: Sampling, *, number: int = 0, **options
) -> Generator[Step]:
    """Continue `prompt_ids`, a `Step` per token. `number` tells samples (or answers) under one seed apart.

    `options` as in `generate_rows`. An `engine` kept from one call to the next spares the model what two prompts begin with.
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
    """Continue every prompt, those of like length together: (which, `Step`) as the tokens come. `options`: those of `Answers`.

    Each has random numbers of its own, by `seed` and its number: what it becomes does not depend on the others.
    """
    wanted = Answers(**options)
    sampling.check()
    check_length(wanted.max_new_tokens)
    room = [room_for_answer(model, len(ids)) for ids in prompts]
    engine = engine or open_engine(model)
    ends, first_decoder = stop_ids(model, tokenizer), TextDecoder(tokenizer)
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    for start in range(0, len(order), engine.most_rows):
        rows = [
            _Row(
                index=k,
                ids=list(prompts[k]),
                room=room[k],
                longest=wanted.max_new_tokens,
                chances=seeded(wanted.seed, wanted.numbers[k] if wanted.numbers else k),
                decoder=first_decoder.behind(prompts[k][-1]),
                stops=StopStrings(wanted.stop or []),
                ends=ends,
            )
            for k in order[start : start + engine.most_rows]
        ]
        yield from _batch(engine, rows, sampling, wanted.num_candidates)


def _batch(engine, rows: "list[_Row]", sampling: Sampling, num_candidates: int) -> Generator[tuple[int, Step]]:
    """The steps of the rows, a token of each in turn; a row that ends leaves the batch."""
    logits = engine.begin([row.ids for row in rows])  # (B, V)
    seen = None
    if sampling.repetition_penalty != 1.0:
        seen = torch.zeros_like(logits, dtype=torch.bool)
        for own, row in zip(seen, rows, strict=True):
            own[[id for id in row.ids if id < len(own)]] = True
    while True:
        tokens = draw(logits, sampling, [row.chances for row in rows], seen)
        for k, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            piece, finish = row.take(token)
            before = None if seen is None else seen[k].clone()
            measure = partial(_measured, token, logits[k], sampling, before, num_candidates, row.decoder)
            yield row.index, Step.unmeasured(token, piece, finish, measure)
        for k in reversed([k for k, row in enumerate(rows) if row.ended]):
            # the last row takes its place
            rows[k], tokens[k] = rows[-1], tokens[-1]
            rows.pop(), tokens.pop()
            if seen is not None:
                seen[k] = seen[len(rows)]
            if rows:
                engine.drop(k)
        if not rows:
            return
        if seen is not None:
            seen = seen[: len(rows)].scatter_(1, torch.tensor(tokens, device=seen.device)[:, None], True)
        logits = engine.advance(tokens)


@dataclass
class _Row:
    """A text in the making."""

    index: int
    ids: list[int]
    room: int | None
    longest: int
    chances: Iterator[float]
    decoder: TextDecoder
    stops: StopStrings
    ends: set[int]
    count: int = 0
    ended: bool = False

    def take(self, token: int) -> tuple[str, str | None]:
        """The text that becomes certain with one more token, and why it is the last one if it is."""
        self.count += 1
        at_end = token in self.ends
        # an end token is never text
        piece = self.stops.add(self.decoder.flush() if at_end else self.decoder.add(token))
        finish = None
        if self.stops.found is not None:
            finish = "stop"
        elif at_end:
            finish = "eos"
        elif self.count == self.longest:
            finish = "length"
        elif self.count == self.room:
            finish = "context"
        if finish and finish != "stop":
            piece += self.stops.add(self.decoder.flush()) + self.stops.flush()
        self.ended = finish is not None
        return piece, finish


def sample_text(model, tokenizer, prompt: str, sampling: Sampling, **options) -> str:
    """The continuation of `prompt` as one string; `options` as in `generate_steps`."""
    steps = generate_steps(model, tokenizer, encode_prompt(tokenizer, prompt), sampling, **options)
    return "".join(step.text for step in steps)


def complete_all(model, tokenizer, prompts: list[list[int]], sampling: Sampling, **options) -> list[str]:
    """Continue each of `prompts` (token ids), of a long one the end; `options` as in `generate_rows`."""
    texts, longest = [""] * len(prompts), (context_length(model) or 2**31) - 1
    for k, step in generate_rows(model, tokenizer, [ids[-longest:] for ids in prompts], sampling, **options):
        texts[k] += step.text
    return texts


def continue_prompts(model, tokenizer, prompts: list[list[int]], max_new_tokens: int) -> list[dict[str, str]]:
    """Continue the prompts with the same seed every time: only the model changes between two calls."""
    sampling = Sampling(temperature=0.8, top_k=50)
    texts = complete_all(model, tokenizer, prompts, sampling, max_new_tokens=max_new_tokens, seed=0)
    longest = (context_length(model) or 2**31) - 1
    shown = [tokenizer.decode(ids[-longest:], skip_special_tokens=True) for ids in prompts]
    return [{"prompt": prompt, "text": text} for prompt, text in zip(shown, texts, strict=True)]


def step_table(position: int, step: Step) -> str:
    """What `--show_steps` shows of one step: the candidates as they could be drawn, the one taken marked."""
    head = f"step {position}: surprise {step.surprise:.2f} bits, entropy {step.entropy:.2f} bits"
    if step.finish:
        head += f"; last: {FINISH[step.finish]}"
    lines = [head, f"    chance   model alone   {'':{WIDEST_BAR}} token"]
    for c in step.candidates:
        taken = "  <- taken" if c.id == step.id else ""
        numbers = f"  {c.probability:7.2%}       {c.model_probability:7.2%}   {bar(c.model_probability):{WIDEST_BAR}}"
        lines.append(f"{numbers} {quoted(c.text)}{taken}")
    return "\n".join(lines) + "\n\n"


def steps_table(steps: list[Step], columns: int | None = None) -> str:
    """Lay out a line for each token of an answer: what it cost the model, and what else it thought of, as far as there are
    `columns` in the terminal."""
    from rich.cells import cell_len, set_cell_size

    names = [quoted(next((c.text for c in step.candidates if c.id == step.id), step.text)) for step in steps]
    width, most = min(max(map(cell_len, names)), 16), WIDEST_BAR if (columns or MANY) >= MANY else 0
    lines = [f"   #   bits  {'':{most}} model alone  {'token':{width}}  instead"]
    for number, (step, name) in enumerate(zip(steps, names, strict=True), 1):
        numbers = (
            f"{number:4}  {step.bits:5.2f}  {bar(step.bits / MOST_BITS, most):{most}}     {step.model_probability:7.2%}"
        )
        lines.append(f"{numbers}  {set_cell_size(name, width) if cell_len(name) < width else name} ")
        others = [c for c in step.candidates if c.id != step.id and c.model_probability > 0.005]
        for words in (f" {quoted(c.text)} {c.model_probability:.0%}" for c in others[:3]):
            if cell_len(lines[-1] + words) <= (columns or 1000):
                lines[-1] += words
    return "\n".join(line.rstrip() for line in lines)


def bar(share: float, longest: int = WIDEST_BAR) -> str:
    """Draw a share of 1 as a bar of signs."""
    return "█" * round(min(share, 1) * longest)


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


def _measured(token, logits, sampling, seen, num_candidates, decoder) -> dict:
    """What there is to see about the choice from logits (V,): the fields of a `Step`."""
    distribution = next_token_distribution(logits, sampling, seen)  # (V,) the token was drawn from it
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
    return {
        "probability": probability,
        "model_probability": float(alone[token]),
        "surprise": -math.log2(probability) + 0.0,  # + 0.0: certainty is 0, not -0
        "entropy": float(-(positive.double() * positive.double().log2()).sum()) + 0.0,
        "candidates": candidates,
    }


def quoted(text: str) -> str:
    """A token between quotes, with the characters a table cannot hold written as escapes."""
    return f"'{printable(text)}'"
