"""Generate Toyland, a built-in corpus of simple English stories, facts and dialogues, from a seed.

    document(seed, index, split)     one document; it depends only on these arguments
    documents(seed, size, split)     a corpus of any size
    questions(seed, size)            held-out questions with reference answers, for evaluation
    story_openings(seed, size)       first words of held-out stories, as prompts

About 30 % are stories, 8 % facts and 62 % dialogues. One in ten combinations of a child (or animal) and the story's object
occurs only in split "heldout". Held-out questions are about such combinations.

>>> document(0, 3) == document(0, 3), document(0, 3) == document(1, 3)
(True, False)
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random

from tinygpt_hf.errors import UsageError
from tinygpt_hf.toyland import dialogues, stories, tasks
from tinygpt_hf.toyland.grammar import PRONOUNS, Verb, frame
from tinygpt_hf.toyland.lexicon import plural
from tinygpt_hf.toyland.tables import Exchange, entries, table

SPLITS = ("train", "heldout")
TOPICS = [sentences.split(" | ") for _, sentences in entries("facts", "topics")]
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def _rng(*address: object) -> Random:
    """Return a generator seeded by a hash of the address, so that neighboring documents are independent."""
    digest = hashlib.blake2b("/".join(map(str, address)).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, "little"))


def facts(rng: Random, held_out: bool) -> str:
    """Generate a text on two topics, with the first sentence of each and some of the others, in order."""
    while True:
        first, second = rng.sample(TOPICS, 2)
        if stories.is_held_out(first[0], second[0]) == held_out:
            break
    sentences = []
    for topic, skip in ((first, 0.2), (second, 0.4)):
        sentences += [sentence for i, sentence in enumerate(topic) if i == 0 or rng.random() >= skip]
    return " ".join(sentences)


def _messages(turns: list[Exchange]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in (("user", turn.question), ("assistant", turn.answer))
    ]


def document(seed: int, index: int, split: str = "train") -> dict:
    """Generate a document: {"text", "kind": "story" | "facts", "id"} or {"messages", "kind": "dialogue", "id"}."""
    if split not in SPLITS:
        raise UsageError(f"split {split!r}", "train or heldout", 'use split="train"')
    rng, held_out = _rng(seed, split, index), split == "heldout"
    identity = f"toyland/{split}/{seed}/{index}"
    chance = rng.random()
    if chance < 0.3:
        return {"text": stories.tell(rng, held_out).text(), "kind": "story", "id": identity}
    if chance < 0.38:
        return {"text": facts(rng, held_out), "kind": "facts", "id": identity}
    return {"messages": _messages(dialogues.dialogue(rng, held_out)), "kind": "dialogue", "id": identity}


def documents(seed: int, size: int, split: str = "train", start: int = 0) -> Iterator[dict]:
    """Generate `size` documents, from number `start` on."""
    for index in range(start, start + size):
        yield document(seed, index, split)


def questions(seed: int, size: int) -> list[dict]:
    """Generate held-out questions: {"messages" (ending with the user's turn), "answer", "accept", "kind"}.

    A reply is right if it contains one of "accept" as whole words, in any case. Three in four questions are about an unseen
    story and one in six is a small task. The others ask who the assistant is, or for things it cannot know. Half of the
    story questions follow other questions with their answers.
    """
    items = []
    for index in range(size):
        rng = _rng(seed, "questions", index)
        chance = rng.random()
        if chance < 0.75:
            turns = dialogues.about_story(rng, held_out=True)
            turns = turns[: 1 + (int(rng.random() * len(turns)) if rng.random() < 0.5 else 0)]
        elif chance < 0.91:
            turns = [tasks.task(rng, held_out=True)]
        elif chance < 0.97:
            turns = [tasks.fixed_exchange(rng, "identity")]
        else:
            turns = [tasks.fixed_exchange(rng, "unknown")]
        last = turns[-1]
        items.append({
            "messages": _messages(turns)[:-1], "answer": last.answer, "accept": list(last.accept), "kind": last.kind,
        })  # fmt: skip
    return items


def story_openings(seed: int, size: int) -> list[str]:
    """Return openings of held-out stories: the first sentence, or its first four words."""
    openings = []
    for index in range(size):
        rng = _rng(seed, "openings", index)
        first = stories.tell(rng, held_out=True).sentences[0]
        words = first.split()
        openings.append(first if rng.random() < 0.5 or len(words) < 6 else " ".join(words[:4]))
    return openings


def words_of(text: str) -> set[str]:
    """Return the word forms of a text in lower case, without 's."""
    return {word.removesuffix("'s") for word in WORD.findall(text.lower())}


@cache
def vocabulary() -> frozenset[str]:
    """Return every word form that the generator can write, in lower case."""
    children = stories.BOYS + stories.GIRLS
    common: dict[str, Sequence] = {"A": children, "B": children, "C": children, "K": stories.KIN, "G": stories.KIN}
    common |= {name: [member for (member,) in stories.pool(name)] for name in ("age", "home", "hair")}
    texts = ["here is a story read this", *stories.NUMBERS[1:], *dialogues.SPOTS, *tasks.DEEDS, *tasks.WORDS]
    texts += [*map(plural, tasks.PLURALS), *(word[0] for word in tasks.SPELLED), *tasks.GROUP.values()]
    texts += [word for cases in PRONOUNS.values() for word in cases.values()]

    def collect(lines: list[str], roles: dict) -> None:
        for part in (part for line in lines if line[0] != "@" for part in frame(line.partition(": ")[2] or line)):
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, Verb):
                plurals = {member.plural for member in roles.get(part.key, [])} or {part.key != "s"}
                texts.extend(part.forms[tense + number] for tense in (0, 2) for number in plurals)
            else:
                texts.extend(member.forms.get(part.form, "") for member in roles.get(part.key, []))

    for plot in stories.plots():
        roles = dict(common)
        for keys, choices in plot.choices:
            roles.update(zip(keys if keys.isupper() else (keys,), zip(*choices, strict=True), strict=True))
        collect(table("plots")[plot.name][1:], roles)
        # in a requested story the object is singular
        texts.extend(member.forms["a"] for member in roles[plot.key[1]] if "a" in member.forms)
    for name in ("shared", "facts", "talk", "tasks"):
        for lines in table(name).values():
            collect(lines, common)
    return frozenset(word for text in texts for word in words_of(text))
