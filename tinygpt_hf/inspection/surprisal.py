"""Measure the surprisal, rank and probability of each token of a text, and the likeliest alternatives.

    ids = text_ids(tokenizer, "One day, Mia")
    tokens = read_tokens(model, tokenizer, ids)      # tokens[3].bits, .rank, .probability, .entropy, .candidates

Surprisal is -log2 p(token | tokens before it), in bits, computed in float64. The first token has no scores (None); it is
the start token if the tokenizer has one.
"""

from dataclasses import dataclass, field

import torch

from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.generation import context_length, encode_prompt
from tinygpt_hf.inference.text_stream import TextDecoder

LIKELIEST = 5
ROWS = 128  # positions scored at a time, to bound the memory of float64 logits
MAX_TOKENS = 4096  # of a text, even if the model's context is longer


@dataclass
class Token:
    """A token of a text with its scores."""

    id: int
    text: str  # for display: a part of a character as \\xNN, a special token by its name
    bytes: int
    bits: float | None = None
    rank: int | None = None
    probability: float | None = None
    entropy: float | None = None
    candidates: list[tuple[str, float]] = field(default_factory=list)  # the likeliest tokens, with probabilities


@dataclass
class Scores:
    """Scores of N targets: bits, ranks and entropies (N,), and ids and probabilities (N, k) of the likeliest tokens."""

    bits: torch.Tensor
    ranks: torch.Tensor
    entropies: torch.Tensor
    ids: torch.Tensor
    probabilities: torch.Tensor


def score_targets(logits_of, count: int, targets: torch.Tensor, likeliest: int = LIKELIEST) -> Scores:
    """Score `count` targets in chunks; `logits_of(slice)` returns the logits (n, V) of these positions."""
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
    """Tokenize a text, with the start token if the tokenizer has one; control tokens typed in it stay plain text."""
    ids, begin = encode_prompt(tokenizer, text), tokenizer.bos_token_id
    return ids if begin is None or ids[0] == begin else [begin, *ids]


def check_length(model, count: int) -> None:
    """Raise a `UsageError` if a text has a single token, or more than the context or `MAX_TOKENS`."""
    longest = context_length(model)
    bound = min(longest or MAX_TOKENS, MAX_TOKENS)
    if count > bound:
        what = "the model's context" if bound == longest else "the limit of this view"
        raise UsageError(f"the text has {count} tokens", f"at most {bound}, {what}", "shorten it, or cut out a passage")
    if count < 2:
        raise UsageError("the text is a single token", "two or more", "use a longer text")


@torch.no_grad()
def token_scores(model, ids: list[int], likeliest: int = LIKELIEST) -> Scores:
    """Score every token but the first."""
    device = model.get_input_embeddings().weight.device
    logits = model(torch.tensor([ids], device=device), use_cache=False).logits[0]  # (T, V)
    return score_targets(lambda rows: logits[rows], len(ids) - 1, torch.tensor(ids[1:]), likeliest)


def read_tokens(model, tokenizer, ids: list[int]) -> list[Token]:
    """Measure a text of token ids."""
    decoder, display = TextDecoder(tokenizer), TextDecoder(tokenizer).display
    tokens, scores = [], token_scores(model, ids)
    for position, id in enumerate(ids):
        known, piece = decoder.bytes_of(id), decoder.add(id)
        text = piece if known is None else display(id)
        token = Token(id, text, len(piece.encode("utf-8", "replace") if known is None else known))
        if position:
            k = position - 1
            token.bits, token.rank = abs(float(scores.bits[k])), int(scores.ranks[k])  # abs: 0, not -0
            token.probability, token.entropy = 2.0**-token.bits, abs(float(scores.entropies[k]))
            pairs = zip(scores.ids[k].tolist(), scores.probabilities[k].tolist(), strict=True)
            token.candidates = [(display(other), probability) for other, probability in pairs]
        tokens.append(token)
    return tokens
