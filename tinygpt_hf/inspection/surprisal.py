"""Measure every token of a text: how many bits it cost the model, its rank, its probability, and what else was likely.

    ids = text_ids(tokenizer, "One day, Mia")
    tokens = read_tokens(model, tokenizer, ids)      # tokens[3].bits, .rank, .probability, .entropy, .candidates

A token costs -log2 of the probability the model gave it after the tokens before it, in float64. The first has none before it:
its numbers are None. Where the tokenizer has a token that begins texts, that one is the first.
"""

from dataclasses import dataclass, field

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.generation import context_length, encode_prompt
from tinygpt_hf.inference.text_stream import TextDecoder

LIKELIEST = 5
ROWS = 128  # positions whose scores are held in float64 at a time
MOST_TOKENS = 4096  # where the model sets no bound of its own


@dataclass
class Token:
    """Hold a token of a text and what the model thought of it."""

    id: int
    text: str  # as it is shown: a part of a character as \\xNN, a special token by its name
    bytes: int
    bits: float | None = None
    rank: int | None = None
    probability: float | None = None
    entropy: float | None = None
    candidates: list[tuple[str, float]] = field(default_factory=list)  # the likeliest tokens here


@dataclass
class Scores:
    """Hold what scores (N, V) say of N targets: (N,) bits, ranks and entropies, (N, k) ids and probabilities of the likeliest."""

    bits: torch.Tensor
    ranks: torch.Tensor
    entropies: torch.Tensor
    ids: torch.Tensor
    probabilities: torch.Tensor


def scored(logits_of, count: int, targets: torch.Tensor, likeliest: int = LIKELIEST) -> Scores:
    """Score `count` targets, a few at a time; `logits_of(slice)` gives the logits of these positions, (n, V)."""
    parts = []
    for start in range(0, count, ROWS):
        rows = slice(start, min(start + ROWS, count))
        logs = logits_of(rows).float().cpu().double().log_softmax(-1)  # (n, V)
        own = logs.gather(1, targets[rows, None])  # (n, 1)
        top = logs.topk(min(likeliest, logs.shape[1]))
        entropies = torch.special.entr(logs.exp()).sum(1)
        parts.append((-own[:, 0], 1 + (logs > own).sum(1), entropies, top.indices, top.values.exp()))
    bits, ranks, entropies, ids, probabilities = map(torch.cat, zip(*parts, strict=True))
    nats = torch.log(torch.tensor(2.0, dtype=torch.float64))
    return Scores(bits / nats, ranks, entropies / nats, ids, probabilities)


def text_ids(tokenizer, text: str) -> list[int]:
    """Encode a text, behind the token that begins texts where the tokenizer has one; control tokens in it are plain text."""
    ids, begin = encode_prompt(tokenizer, text), tokenizer.bos_token_id
    return ids if begin is None or ids[0] == begin else [begin, *ids]


def check_length(model, count: int) -> None:
    """Refuse a text of a single token, or beyond what the model looks at."""
    longest = context_length(model)
    bound = min(longest or MOST_TOKENS, MOST_TOKENS)
    if count > bound:
        what = "the model's context" if bound == longest else "the most that is shown"
        raise UsageError(f"the text has {count} tokens", f"at most {bound}, {what}", "shorten it, or cut out a passage")
    if count < 2:
        raise UsageError("the text is a single token", "two or more", "use a longer text")


@torch.no_grad()
def token_scores(model, ids: list[int], likeliest: int = LIKELIEST) -> Scores:
    """Score every token but the first."""
    device = model.get_input_embeddings().weight.device
    logits = model(torch.tensor([ids], device=device), use_cache=False).logits[0]  # (T, V)
    return scored(lambda rows: logits[rows], len(ids) - 1, torch.tensor(ids[1:]), likeliest)


def read_tokens(model, tokenizer, ids: list[int]) -> list[Token]:
    """Measure a text of token ids."""
    decoder, shown = TextDecoder(tokenizer), TextDecoder(tokenizer).shown
    tokens, scores = [], token_scores(model, ids)
    for place, id in enumerate(ids):
        known, piece = decoder.bytes_of(id), decoder.add(id)
        text = piece if known is None else shown(id)
        token = Token(id, text, len(piece.encode("utf-8", "replace") if known is None else known))
        if place:
            k = place - 1
            token.bits, token.rank = abs(float(scores.bits[k])), int(scores.ranks[k])  # abs: certainty is 0, not -0
            token.probability, token.entropy = 2.0**-token.bits, abs(float(scores.entropies[k]))
            pairs = zip(scores.ids[k].tolist(), scores.probabilities[k].tolist(), strict=True)
            token.candidates = [(shown(other), chance) for other, chance in pairs]
        tokens.append(token)
    return tokens
