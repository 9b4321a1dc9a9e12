"""Read the training documents together with their resume points, so that a shard can begin anywhere in the text.

for (part, document), place in PlacedDocuments(corpus, before, reporter, turns): ...
for batch in batched(long_items(documents, tokenizer)): ...     # lists of (part, document or a part of one, place)
"""

import itertools
from collections.abc import Iterable, Iterator

from tinygpt_hf.reading import sources
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.reading.decoding import LongText
from tinygpt_hf.reading.reporter import Reporter
from tinygpt_hf.reading.turns import document_texts
from tinygpt_hf.tokenizing.encode import cut_long
from tinygpt_hf.tokenizing.process_map import grouped

BATCH_CHARACTERS = 1 << 20  # per call of the tokenizer, or per message to a process
BEGINNING: dict = {"rows": 0, "state": None, "documents": 0, "items": 0, "skip": 0}


class PlacedDocuments:
    """The training documents that follow the shard with manifest `before`, as ((part, document), resume point).

    With `turns` sources are read round robin, else one after the other. A resume point records how far each source was read
    and whose turn it was. It also has the item inside the document (`items`, see `long_items`) and the number of its ids that
    were used (`skip`).
    """

    def __init__(self, corpus: Corpus, before: dict | None, reporter: Reporter, turns: bool):
        place = before["next"] if before else {}
        begins = place.get("sources") or [place or BEGINNING] * len(corpus.sources)  # one source needs no list
        how = before.get("how") if before else None  # older manifests have it here, not in the resume point
        pairs = zip(corpus.sources, begins, strict=True)
        self.readers = [SourceReader(corpus, source, {"how": how, **begin}, reporter) for source, begin in pairs]
        self.corpus, self._turns, self._turn = corpus, turns, place.get("turn", 0)
        self._resume_at = (place["items"], place["skip"]) if before else None

    def __iter__(self) -> Iterator[tuple[tuple[str, dict], dict]]:
        left = len(self.readers)
        while left:
            reader = self.readers[self._turn]
            if (document := reader.next()) is not None:
                left = len(self.readers)
                places = [each.place for each in self.readers]
                places[self._turn] |= {"documents": places[self._turn]["documents"] - 1}  # resume with this document
                place = places[0] if len(places) == 1 else {"sources": places, "turn": self._turn}
                resume_at, self._resume_at = self._resume_at, None
                place |= {"items": 0, "skip": 0, **({"from": resume_at} if resume_at else {})}
                if not self._turns and len(places) > 1:  # in turns every document would be of another source
                    document["of_source"] = self._turn
                for part in self.corpus.parts_of(document, reader.how, reader.source):
                    yield part, place
            else:
                left -= 1
            if self._turns or document is None:
                self._turn = (self._turn + 1) % len(self.readers)
                if not self._turns and self._turn == 0:
                    return


class SourceReader:
    """A reader of one source that starts at a resume point and opens the source at the first call of `next`."""

    def __init__(self, corpus: Corpus, source: sources.Source, begin: dict, reporter: Reporter):
        self.source, self.how, self._corpus = source, begin["how"], corpus
        self._place = sources.ResumePoint(begin["rows"], begin["state"], begin.get("hash"))
        self._since, self._skip = 0, begin["documents"]
        opened = source.streaming and self.how is not None
        self._documents = sources.documents(source, True, reporter, begin=self._place, opened=opened)

    @property
    def place(self) -> dict:
        """Return the resume point of the next document."""
        return {**vars(self._place), "how": self.how, "documents": self._since + self._skip}

    def next(self) -> dict | None:
        """Return the next document, or None after the last one."""
        if self.how is None:
            self.how, self._documents = self._corpus.choose_split(self._documents)
        document = None
        for _ in range(self._skip + 1):
            document = next(self._documents, None)
            if document is not None:
                if place := document.pop("place", None):
                    self._place, self._since = place, 0
                self._since += 1
        self._skip = 0
        return document


def long_items(placed: Iterable[tuple[tuple[str, dict], dict]], tokenizer) -> Iterator[tuple[str, dict, dict]]:
    """Yield (part, item, resume point); a long text gives several items, its first marked `begins` and its last `ends`.

    `items` in a resume point is the item's number inside its document. When resuming, items already used are skipped.
    """
    last, number = None, 0
    for (part, document), place in placed:
        number, last = (number if place is last else 0), place
        items, skip = place.get("from") or (0, 0)
        for item in _pieces(document, tokenizer):
            item_place = {name: value for name, value in place.items() if name != "from"} | {"items": number}
            if number >= items:
                yield part, item, item_place | ({"skip": skip} if number == items else {})
            number += 1


def _pieces(document: dict, tokenizer) -> Iterator[dict]:
    if not isinstance(document.get("text"), LongText):
        yield document
        return
    pieces = itertools.pairwise(itertools.chain(cut_long(document["text"], tokenizer), [None]))
    for number, (piece, following) in enumerate(pieces):
        item = {"text": piece, "origin": document["origin"], "begins": number == 0, "ends": following is None}
        more = {name: document[name] for name in ("of_source", "replaced") if number == 0 and name in document}
        yield item | more


def batched(items: Iterable[tuple]) -> Iterator[list[tuple]]:
    """Group (part, document, ...) tuples into lists of about BATCH_CHARACTERS characters."""
    return grouped(items, lambda item: sum(map(len, document_texts(item[1]))) + 64, BATCH_CHARACTERS)
