"""Which documents are used how often, and which are held out for validation: pure functions of the document.

A document's fate hangs on a hash of its content, not on its place, so it stays on its side of the split when the corpus grows
or is read in another order, and copies of one document cannot land on both sides.
"""

import itertools
import json
from collections.abc import Iterable, Iterator

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import LongText, fraction, salted_hash

FEW_DOCUMENTS = 64  # below this a hash would hold out none or too many: the tail of each document is held out instead


def content_hash(document: dict, salt: str = "") -> float:
    """A number in [0, 1) that depends on the content of the document only: its text, or its messages and tools."""
    content = document.get("text")
    if isinstance(content, LongText):
        return content.hash(salt)
    if content is None:
        said = [document["messages"], document["tools"]] if "tools" in document else document["messages"]
        content = json.dumps(said, sort_keys=True, default=str)
    digest = salted_hash(salt)
    digest.update(content.encode())
    return fraction(digest)


def repetitions(document: dict, weight: float) -> int:
    """How often a document is used at this weight: 2 is twice; 0.5 is half of the documents, chosen by their hash."""
    whole = int(weight)
    return whole + (weight > whole and content_hash(document, "weight") < weight - whole)


def is_held_out(document: dict, percentage: float) -> bool:
    """Does the document belong to the validation part?"""
    return content_hash(document, "validation") < percentage / 100


def tail_border(length: int, percentage: float) -> int:
    """Where the tail begins that is held out of a text of so many characters."""
    return int(length * (1 - percentage / 100))


def border(document: dict, how: str, percentage: float) -> int:
    """How many characters of a text, from its first on, are for training."""
    length = len(document["text"])
    if percentage > 0 and how == "tail":
        return tail_border(length, percentage)
    return 0 if percentage > 0 and is_held_out(document, percentage) else length


def choose_split(documents: Iterator[dict], wanted: str | None) -> tuple[str, Iterator[dict]]:
    """`hash` or `tail`, and the documents again: as wanted, else tail for a corpus of few texts."""
    first = list(itertools.islice(documents, FEW_DOCUMENTS))
    few = len(first) < FEW_DOCUMENTS and all("text" in document for document in first)
    return wanted or ("tail" if few else "hash"), itertools.chain(first, documents)


def split(documents: Iterable[dict], how: str, percentage: float) -> Iterator[tuple[str, dict]]:
    """("train" | "validation", document) for every document; a text cut by its tail comes as two."""
    for document in documents:
        if percentage <= 0:
            yield "train", document
        elif how == "tail" and "messages" in document:
            raise UsageError(
                f"--validation_split is tail, and {document['origin']} is a conversation",
                "texts: a conversation is not cut",
                "use --validation_split hash, or give --validation_file",
            )
        elif how == "tail":
            text = document["text"]
            cut = tail_border(len(text), percentage)
            head, tail = text[:cut], text[cut:]
            if head:
                yield "train", {**document, "text": head}
            if tail:
                yield "validation", {**document, "text": tail}
        else:
            yield ("validation" if is_held_out(document, percentage) else "train"), document
