"""Documents cleaned one by one on all cores, in their order: what comes out does not depend on how many processes there are."""

import collections
import contextlib
import itertools
import json
import multiprocessing.connection
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tinygpt_hf.curation.deduplication import Signatures, paragraph_hashes, shingles_of, text_hash
from tinygpt_hf.curation.filters import Drop, View, contents, mended, verdict
from tinygpt_hf.errors import RunError
from tinygpt_hf.settings.corpus import CorpusArguments
from tinygpt_hf.tokenizing.parallel import all_cores

BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 2_000_000
# As many processes as cores, so one thread each; the folder we are in is not searched for modules.
WORKER_ENVIRONMENT = {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class Cleaned:
    """What one document became: dropped, or mended, with what later steps ask about it."""

    document: dict
    size: int  # bytes of its text
    mended: Counter
    drop: Drop | None = None
    language: str | None = None  # where it was asked
    characters: Counter | None = None
    key: int = 0
    paragraphs: list[tuple[int, int]] = field(default_factory=list)
    length: int = 0
    shingles: Any = None  # (S,) uint32
    signature: Any = None  # (128,) uint32


class Cleaner:
    """The part of cleaning that looks at one document alone: runs in any process."""

    def __init__(self, settings: CorpusArguments):
        self._settings = settings
        self._signatures = Signatures() if settings.near_duplicates != "off" else None

    def __call__(self, documents: list[dict]) -> list[Cleaned]:
        return [self._clean(document) for document in documents]

    def _clean(self, document: dict) -> Cleaned:
        gone = document.get("drop")  # for its source's sake
        changed, counts = (
            (document, Counter()) if gone and not self._settings.mask else mended(document, self._settings)
        )
        view = View.of(changed)
        if drop := gone or verdict(view, self._settings):
            # as it was read, so that a person sees what the rule saw, unless personal data was to be masked
            shown = changed if self._settings.mask else document
            return Cleaned(shown, sum(len(text.encode()) for text in contents(shown)), counts, drop)
        return self.described(changed, counts, view)

    def described(self, document: dict, counts: Counter, view: View | None = None) -> Cleaned:
        """A document that stays, with what tells it from others."""
        view = view or View.of(document)
        cleaned = Cleaned(document, sum(len(text.encode()) for text in contents(document)), counts)
        cleaned.characters, cleaned.length = view.characters, len(view.text)
        turns = [(message["role"], message["content"]) for message in document.get("messages", [])]
        cleaned.key = text_hash(json.dumps(turns or view.text))
        if self._settings.languages:
            cleaned.language = next(iter(view.languages))
        if self._settings.max_seen_paragraphs is not None:
            cleaned.paragraphs = paragraph_hashes(view.paragraphs)
        if self._signatures is not None:
            cleaned.shingles = shingles_of(view.text)
            cleaned.signature = self._signatures.of(cleaned.shingles)
        return cleaned


def cleaned_documents(
    weighted: Iterator[tuple[dict, int]], settings: CorpusArguments, num_proc: int | None
) -> Iterator[tuple[Cleaned, int]]:
    """Documents through a Cleaner each, in their order: here if they are few, else in processes of their own."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    batches = _batches(weighted)
    first = list(itertools.islice(batches, 2))
    workers = num_proc or all_cores()
    if workers == 1 or len(first) < 2:
        cleaner = Cleaner(settings)
        for batch in itertools.chain(first, batches):
            for document, copies in batch:
                yield cleaner([document])[0], copies
        return
    waiting = collections.deque()  # of (future, copies); twice as many batches as workers are under way
    context = get_context("spawn")  # threads of other libraries do not survive a fork
    with _environment(WORKER_ENVIRONMENT), ProcessPoolExecutor(workers, context, _start_worker, (settings,)) as pool:
        try:
            for batch in itertools.chain(first, batches):
                texts = [document for document, _ in batch]
                waiting.append((pool.submit(_clean_batch, texts), [copies for _, copies in batch]))
                if len(waiting) >= 2 * workers:
                    done, copies = waiting.popleft()
                    yield from zip(done.result(), copies, strict=True)
            while waiting:
                done, copies = waiting.popleft()
                yield from zip(done.result(), copies, strict=True)
        except BrokenProcessPool as error:
            raise RunError("a process that cleans was killed, by want of memory perhaps: fewer: --num_proc") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """What the processes started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _batches(weighted: Iterator[tuple[dict, int]]) -> Iterator[list[tuple[dict, int]]]:
    batch, size = [], 0
    for document, copies in weighted:
        batch.append((document, copies))
        size += sum(map(len, contents(document)))
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


_cleaner: Cleaner | None = None  # of this worker process


def _start_worker(settings: CorpusArguments) -> None:
    global _cleaner
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that writes
    _cleaner = Cleaner(settings)


def _end_with_parent() -> None:
    """A parent that was killed tells nobody: its queue stays open, as we hold both ends of it."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _clean_batch(documents: list[dict]) -> list[Cleaned]:
    return _cleaner(documents)
