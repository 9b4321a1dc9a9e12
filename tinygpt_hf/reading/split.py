"""Split documents into training and validation, and repeat them by weight, as pure functions of their content.

The split uses a hash of a document's content, not its position. A document therefore stays on its side when the corpus grows
or is read in another order, and duplicates are always on the same side.
"""

import itertools
import json
from collections.abc import Iterator

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import LongText, fraction, salted_hash

FEW_DOCUMENTS = 64  # with fewer, a hash may hold out none or too many, so the tail of each text is held out instead


def content_hash(document: dict, salt: str = "") -> float:
    """Hash a document's content (its text, or its messages and tools) to a number in [0, 1)."""
    content = document.get("text")
    if isinstance(content, LongText):
        return content.hash(salt)
    if content is None:
        parts = [document["messages"], document["tools"]] if "tools" in document else document["messages"]
        content = json.dumps(parts, sort_keys=True, default=str)
    digest = salted_hash(salt)
    digest.update(content.encode())
    return fraction(digest)


def repetitions(document: dict, weight: float) -> int:
    """Return how often a document is used: always twice for weight 2, for 0.5 once for half of the documents, by hash."""
    whole = int(weight)
    return whole + (weight > whole and content_hash(document, "weight") < weight - whole)


def is_held_out(document: dict, percentage: float) -> bool:
    """Check whether the hash split puts the document into validation."""
    return percentage > 0 and content_hash(document, "validation") < percentage / 100


def tail_border(length: int, percentage: float) -> int:
    """Return the character at which the held-out tail of a text of `length` characters begins."""
    return int(length * (1 - percentage / 100))


def border(document: dict, how: str, percentage: float) -> int:
    """Return the number of characters at the beginning of a text that are for training."""
    length = len(document["text"])
    if percentage > 0 and how == "tail":
        return tail_border(length, percentage)
    return 0 if is_held_out(document, percentage) else length


def choose_split(documents: Iterator[dict], wanted: str | None) -> tuple[str, Iterator[dict]]:
    """Return the split method and all documents: `wanted` if given, else "tail" for fewer than 64 texts, else "hash"."""
    first = list(itertools.islice(documents, FEW_DOCUMENTS))
    few = len(first) < FEW_DOCUMENTS and all("text" in document for document in first)
    return wanted or ("tail" if few else "hash"), itertools.chain(first, documents)


def split(document: dict, how: str, percentage: float) -> Iterator[tuple[str, dict]]:
    """Yield ("train" | "validation", document); the tail split divides a text into two documents."""
    if how != "tail" or percentage <= 0:
        yield ("validation" if is_held_out(document, percentage) else "train"), document
        return
    if "messages" in document:
        raise UsageError(
            f"--validation_split is tail, and {document['origin']} is a conversation",
            "texts: a conversation is not cut",
            "use --validation_split hash, or give --validation_file",
        )
    text = document["text"]
    cut = tail_border(len(text), percentage)
    for part, piece in (("train", text[:cut]), ("validation", text[cut:])):
        if piece:
            yield part, {**document, "text": piece}
