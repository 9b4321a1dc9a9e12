"""Toyland, the embedded corpus: simple, grammatical English stories, facts, dialogues, by (seed, index), no download.

    document(seed, index, split)     the same document on every machine, in any order, without making its neighbours
    documents(seed, size, split)     a corpus of any size
    questions(seed, size)            held-out questions with reference answers, for measuring
    story_openings(seed, size)       first words of held-out stories, as prompts

About 30 % stories, 8 % facts, 62 % dialogues. Who meets what is split: one in ten combinations of a child (or animal)
and the story's object occurs only in split "heldout", and a held-out question is about such a combination.

>>> document(0, 3) == document(0, 3), document(0, 3) == document(1, 3)
(True, False)
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from random import Random

from tinygpt_hf.errors import UsageError
from tinygpt_hf.toyland import words as toyland_words
from tinygpt_hf.toyland.dialogues import about_story, dialogue
from tinygpt_hf.toyland.facts import facts
from tinygpt_hf.toyland.stories import tell
from tinygpt_hf.toyland.tasks import IDENTITY, STRANGE, Turn, said, task

SPLITS = ("train", "heldout")


def _rng(*address: object) -> Random:
    """A generator for one address: a hash, so that neighbours have nothing in common."""
    digest = hashlib.blake2b("/".join(map(str, address)).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "little"))


def _messages(turns: list[Turn]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in (("user", turn.user), ("assistant", turn.assistant))
    ]


def document(seed: int, index: int, split: str = "train") -> dict:
    """Document number `index`: {"text", "kind": "story" | "facts", "id"} or {"messages", "kind": "dialogue", "id"}."""
    if split not in SPLITS:
        raise UsageError(f"split {split!r}", "toyland has the splits train and heldout", 'use split="train"')
    rng, held_out = _rng(seed, split, index), split == "heldout"
    identity = f"toyland/{split}/{seed}/{index}"
    chance = rng.random()
    if chance < 0.3:
        return {"text": tell(rng, held_out).text(), "kind": "story", "id": identity}
    if chance < 0.38:
        return {"text": facts(rng, held_out), "kind": "facts", "id": identity}
    return {"messages": _messages(dialogue(rng, held_out)), "kind": "dialogue", "id": identity}


def documents(seed: int, size: int, split: str = "train", start: int = 0) -> Iterator[dict]:
    """Documents start, start + 1, ... of this seed, `size` of them."""
    for index in range(start, start + size):
        yield document(seed, index, split)


def questions(seed: int, size: int) -> list[dict]:
    """Held-out questions: {"messages" (ending with the user's turn), "answer", "accept", "kind"}.

    A reply is right when it contains one of "accept" as whole words, whatever the case. Three in four are about a story
    the model has never seen, one in six a small task, the others who the assistant is and what it cannot know. In half
    of the story questions other questions and their answers come before.
    """
    asked = []
    for index in range(size):
        rng = _rng(seed, "questions", index)
        chance = rng.random()
        if chance < 0.75:
            turns = about_story(rng, held_out=True)[1]
            turns = turns[: 1 + (int(rng.random() * len(turns)) if rng.random() < 0.5 else 0)]
        elif chance < 0.91:
            turns = [task(rng, held_out=True)]
        elif chance < 0.97:
            turns = [said(rng, IDENTITY, "identity")]
        else:
            turns = [said(rng, STRANGE, "unknown")]
        last = turns[-1]
        asked.append({
            "messages": _messages(turns)[:-1], "answer": last.assistant, "accept": list(last.accept), "kind": last.kind,
        })  # fmt: skip
    return asked


def story_openings(seed: int, size: int) -> list[str]:
    """Beginnings of held-out stories: the first sentence, or its first few words."""
    openings = []
    for index in range(size):
        rng = _rng(seed, "openings", index)
        first = tell(rng, held_out=True).sentences[0]
        words = first.split()
        openings.append(first if rng.random() < 0.5 or len(words) < 6 else " ".join(words[:4]))
    return openings


@cache
def vocabulary() -> frozenset[str]:
    """Every word form the generator can write, in lower case; a possessive counts as its noun."""
    return toyland_words.vocabulary()
