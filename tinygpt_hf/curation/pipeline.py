"""Sources -> a clean corpus in a new folder: data/, excluded/, corpus.json and a card; the whole folder or none of it.

    facts = prepare_corpus(DataArguments(train_file=["books"]), CorpusArguments(output_dir="corpora/books"))

Documents go through in their order: weight, mending, rules of one document, exact duplicates, paragraphs seen before, near
duplicates, near duplicates across the split, choice of a sample. Of documents that are alike the first stays. All but the
comparison with other documents runs on all cores; what is written does not depend on how many there are. In memory: the batches
under way, a file's text, and what deduplication.py and the facts hold; with a sample 24 bytes a document.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import tinygpt_hf
from tinygpt_hf import storage
from tinygpt_hf.cards.render import corpus_card
from tinygpt_hf.curation.deduplication import NearDuplicates, Paragraphs, check_datasketch
from tinygpt_hf.curation.documents import Cleaned, Cleaner, cleaned_documents
from tinygpt_hf.curation.filters import Drop, contents, mended
from tinygpt_hf.curation.language import check_languages
from tinygpt_hf.curation.shards import EXCLUDED, Documents, Draft, Excluded
from tinygpt_hf.curation.statistics import Facts, unknown_characters
from tinygpt_hf.errors import UsageError, redacted
from tinygpt_hf.reading import sources
from tinygpt_hf.reading.discovery import CORPUS, DATA, FORMAT
from tinygpt_hf.reading.split import FEW_DOCUMENTS, content_hash, is_held_out, repetitions
from tinygpt_hf.settings.arguments import DataArguments
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.corpus import CorpusArguments, check_corpus
from tinygpt_hf.tokenizing.chat_template import encode_texts
from tinygpt_hf.tokenizing.tokenizer import load_tokenizer

TOKENIZED_AT_ONCE = 256  # documents
OF_DATA = (  # the settings of `data:` that decide what is written
    "train_file", "validation_file", "dataset_name", "dataset_config_name", "dataset_split", "dataset_revision", "sources",
    "text_column", "encoding_errors", "document_separator", "max_train_samples", "validation_split", "validation_split_percentage",
)  # fmt: skip


def prepare_corpus(
    data: DataArguments,
    corpus: CorpusArguments,
    progress: Callable[[Facts], None] = lambda facts: None,
) -> dict:
    """Clean the training sources of `data` into `corpus.output_dir`; returns the facts."""
    check_settings(data)
    check_corpus(corpus)
    settings = corpus.resolved()
    if not corpus.output_dir:
        raise UsageError("there is no --output_dir", "a new folder", "try --output_dir corpora/mine")
    target = Path(corpus.output_dir)
    if target.exists():
        raise UsageError(f"{target} exists", "a new folder", "choose another --output_dir")
    if settings.near_duplicates != "off":
        check_datasketch()
    check_languages(settings.languages)
    storage.sweep(target)  # before files are looked for: what a killed run left is no text
    named = sources.training_sources(data, corpus.seed)
    origin_facts = {
        "sources": [sources.fingerprint(source) for source in named],
        "source_remarks": [redacted(remark) for remark in sources.remarks(sources.all_sources(data, corpus.seed))],
    }
    # the files are looked for before the new folder is there, which may lie among them
    origins = [sources.settled(source) for source in named]
    validation = sources.settled(sources.validation_source(data))
    tokenizer = load_tokenizer(corpus.tokenizer_name) if corpus.tokenizer_name else None
    with storage.new_folder(target) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        facts = Facts()
        excluded = Excluded(folder / EXCLUDED, corpus.output_format, corpus.shard_megabytes * 10**6)
        sift = Sift(settings, data, scratch, excluded, facts)
        output = Output(settings, folder, scratch, tokenizer, facts, data.validation_split_percentage)
        with contextlib.closing(sift):
            if data.validation_file:
                sift.protect(sources.documents(validation))
            for cleaned, copies in sift.kept(_weighted(origins), progress):
                output.add(cleaned, copies)
            output.close(sift)
        excluded.close()
        _refuse_nothing(facts)
        scratch.rmdir()
        record = _record(folder, data, corpus, settings, origin_facts, facts, sift, tokenizer)
        storage.write_json(folder / CORPUS, record)
        storage.write_file(folder / "README.md", corpus_card(record))
    return record


def _weighted(origins: list[sources.Source]) -> Iterator[tuple[dict, int]]:
    """(document, how many copies its source's weight asks for); 0 where the hash left it out."""
    for source in origins:
        for document in sources.documents(source, keep_broken=True):
            yield {**document, "origin": redacted(document["origin"])}, repetitions(document, source.weight)


class Sift:
    """All that compares a document with earlier ones, and counts."""

    def __init__(self, settings: CorpusArguments, data: DataArguments, scratch: Path, excluded: Excluded, facts: Facts):
        self._settings, self._data, self._excluded, self.facts = settings, data, excluded, facts
        self._first: dict[int, int] = {}  # text hash -> number of the document
        self._origins: list[str] = []  # by number
        self._held_out = bytearray()  # by number: 1 on the validation side
        self.protected = 0  # the first so many are the validation files'
        self._paragraphs = Paragraphs()
        self._near = None
        if settings.near_duplicates != "off":
            self._near = NearDuplicates(settings.near_duplicate_threshold, scratch)
        self._scratch = scratch

    def protect(self, documents: Iterable[dict]) -> None:
        """Take in the documents of validation files: what equals them, or nearly, is no training text."""
        cleaner = Cleaner(self._settings)
        for document in documents:
            self._remember(cleaner.described(*mended(document, self._settings)), held_out=True)
        self.protected = len(self._origins)

    def kept(self, weighted: Iterator[tuple[dict, int]], progress) -> Iterator[tuple[Cleaned, int]]:
        """The documents that stay, with their number of copies."""

        def marked() -> Iterator[tuple[dict, int]]:
            """What goes for its source's sake travels with the others, so that all stand in `excluded` in their order."""
            for document, copies in weighted:
                self.facts.count_read(document)
                if not copies:
                    document["drop"] = Drop("weight", "left out by its source's weight")
                elif "broken" in document:
                    document["drop"] = Drop("conversation", document["broken"])
                yield document, copies

        for number, (cleaned, copies) in enumerate(cleaned_documents(marked(), self._settings, self._data.num_proc)):
            drop = cleaned.drop or self._before(cleaned)
            if drop:
                self.drop(cleaned.document, cleaned.size, drop, with_text=drop.rule != "weight")
            else:
                yield cleaned, copies
            if number % 1000 == 999:
                progress(self.facts)

    def drop(self, document: dict, size: int, drop: Drop, with_text: bool = True) -> None:
        self.facts.count_dropped(drop.rule, size)
        self._excluded.write(document, drop.rule, drop.reason, with_text)

    def _before(self, cleaned: Cleaned) -> Drop | None:
        """A reason to drop the document for what came before it; else it is remembered."""
        s = self._settings
        if s.exact_duplicates and cleaned.key in self._first:
            return Drop("exact_duplicate", f"same text as {self._origins[self._first[cleaned.key]]}")
        if s.max_seen_paragraphs is not None and s.max_seen_paragraphs < 1:
            share = self._paragraphs.seen_share(cleaned.paragraphs, cleaned.length)
            if share > s.max_seen_paragraphs:
                return Drop("seen_paragraphs", f"{share:.3g} of it in paragraphs of earlier documents")
        held_out = not self.protected and is_held_out(cleaned.document, self._data.validation_split_percentage)
        if self._near is not None:
            matches = self._near.matches(cleaned.shingles, cleaned.signature)
            if s.near_duplicates == "drop":
                for number, similarity in matches:
                    return Drop("near_duplicate", f"{similarity:.3g} in common with {self._origins[number]}")
            else:
                self.facts.near_duplicates += any(True for _ in matches)
        self._remember(cleaned, held_out)
        return None

    def _remember(self, cleaned: Cleaned, held_out: bool) -> None:
        self._first.setdefault(cleaned.key, len(self._origins))
        self._origins.append(cleaned.document["origin"])
        self._held_out.append(held_out)
        self._paragraphs.add(cleaned.paragraphs)
        if self._near is not None:
            self._near.add(cleaned.shingles, cleaned.signature)

    def leaks(self, among: Collection[int] | None = None) -> dict[int, Drop]:
        """All training documents nearly equal to a held-out one, numbered as they came out of `kept`; of `among` only, if given."""
        if self._near is None:
            return {}
        numbers = range(len(self._origins) - self.protected) if among is None else sorted(among)
        sides: tuple[list[int], list[int]] = ([], [*range(self.protected)])
        for number in numbers:
            sides[self._held_out[self.protected + number]].append(self.protected + number)
        return {
            number - self.protected: Drop(
                "near_duplicate", f"{similarity:.3g} in common with {self._origins[other]}, which is held out"
            )
            for number, (other, similarity) in self._near.across(sides[1], sides[0]).items()
        }

    def close(self) -> None:
        if self._near is not None:
            self._near.close()
            (self._scratch / "shingles").unlink(missing_ok=True)


class Output:
    """The documents that stay, written as they come; kept in a draft where a sample, or a look across the split, needs them all."""

    def __init__(
        self, settings: CorpusArguments, folder: Path, scratch: Path, tokenizer, facts: Facts, percentage: float
    ):
        self._percentage = percentage
        self._tokenizer, self._seed, self._facts = tokenizer, settings.seed, facts
        self._kept = Documents(folder / DATA, settings.output_format, settings.shard_megabytes * 10**6)
        limits = {n: getattr(settings, f"sample_{n}") for n in ("documents", "bytes", "tokens")}
        self._unit, self._limit = next(((n, v) for n, v in limits.items() if v), (None, 0))
        self._near = settings.near_duplicates
        self._draft = Draft(scratch) if self._unit or self._near == "drop" else None
        self._order: list[tuple[float, int, int]] = []  # (hash, number, amount in the sample's unit)
        self._pending: list[tuple[Cleaned, int]] = []
        facts.tokens = 0 if tokenizer is not None else None

    def add(self, cleaned: Cleaned, copies: int) -> None:
        self._pending.append((cleaned, copies))
        if len(self._pending) == TOKENIZED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        for (cleaned, copies), tokens in zip(self._pending, self._tokens(), strict=True):
            row = {"document": cleaned.document, "size": cleaned.size, "copies": copies, "tokens": tokens}
            row |= {"mended": cleaned.mended, "characters": cleaned.characters, "language": cleaned.language}
            if self._draft is None:
                self._write(row)
                continue
            if self._unit:
                amount = {"documents": 1, "bytes": cleaned.size, "tokens": tokens}[self._unit] * copies
                self._order.append((content_hash(cleaned.document, f"sample {self._seed}"), len(self._order), amount))
            self._draft.write(row)
        self._pending = []

    def _tokens(self) -> list[int]:
        if self._tokenizer is None:
            return [0] * len(self._pending)
        texts = [contents(cleaned.document) for cleaned, _ in self._pending]
        ids = iter(encode_texts(self._tokenizer, [text for part in texts for text in part]))
        return [sum(len(next(ids)) for _ in part) for part in texts]

    def _write(self, row: dict) -> None:
        document, size, copies = row["document"], row["size"], row["copies"]
        for _ in range(copies):
            self._kept.write(document, size)
        self._facts.held_out += is_held_out(document, self._percentage) * copies
        self._facts.count_kept(
            document, size, copies, Counter(row["mended"]), Counter(row["characters"]), row["language"]
        )
        if self._tokenizer is not None:
            self._facts.tokens += row["tokens"] * copies

    def close(self, sift: Sift) -> None:
        """Write what is left; `sift` says what leaks, and takes that and the documents outside the sample."""
        self._flush()
        # before the sample is chosen, so that a larger one holds the smaller
        leaks = sift.leaks() if self._near == "drop" else {}
        taken = self._sample(leaks) if self._unit else None
        if self._near == "count":
            self._facts.leaked = len(sift.leaks(taken))
        if self._draft is not None:
            for number, row in enumerate(self._draft.documents()):
                if number in leaks:
                    sift.drop(row["document"], row["size"], leaks[number])
                elif taken is None or number in taken:
                    self._write(row)
                else:
                    sift.drop(row["document"], row["size"], Drop("sample", "not in the sample"), with_text=False)
            self._draft.remove()
        self._facts.leaks_dropped = len(leaks)
        self._kept.close()

    def _sample(self, without: Collection[int]) -> set[int]:
        """The documents with the lowest hashes, up to the first that does not fit: going on would favour short ones."""
        taken, left = set(), self._limit
        for _, number, amount in sorted(self._order):
            if number in without:
                continue
            if amount > left:
                break
            taken.add(number)
            left -= amount
        return taken


def _refuse_nothing(facts: Facts) -> None:
    if not facts.read:
        raise UsageError("there is no document in the text", "at least one", "name files that hold some")
    if not facts.kept:
        took = sorted(facts.dropped.items(), key=lambda entry: -entry[1][0])
        words = ", ".join(f"{rule} took {number}" for rule, (number, _) in took)
        raise UsageError(
            f"of {facts.read} documents none is left ({words})",
            "at least one",
            "loosen that rule, or choose another --preset",
        )


def _record(folder, data, corpus, settings, origin_facts: dict, facts: Facts, sift: Sift, tokenizer) -> dict:
    """corpus.json."""
    few = facts.texts_only and facts.written < FEW_DOCUMENTS
    if data.validation_file:
        split, held_out = "validation files", sift.protected
    elif (data.validation_split or ("tail" if few else "hash")) == "tail":
        split, held_out = "tail of each text", facts.kept
    else:
        split, held_out = "hash of each document", facts.held_out
    looked = settings.near_duplicates != "off"
    why_not = (
        "`--near_duplicates off`" if not looked else
        split if split == "tail of each text" else
        "nothing is held out" if not held_out else None
    )  # fmt: skip
    near = {"setting": settings.near_duplicates, "threshold": settings.near_duplicate_threshold}
    if looked:
        import datasketch

        near |= {"datasketch": datasketch.__version__}
    record = {
        "format": FORMAT,
        "tinygpt_hf": tinygpt_hf.__version__,
        "name": Path(corpus.output_dir).name,
        "license": corpus.license,
        "rights": corpus.rights,
        "language": corpus.language or (corpus.languages if corpus.min_language_score else []),
        **facts.as_json(),
        "duplicates": near,
        "split": {"by": split, "percentage": data.validation_split_percentage, "held_out": held_out},
        "leakage": {
            "documents": facts.leaked if why_not is None else None,
            "why_not_measured": why_not,
            "dropped": facts.leaks_dropped,
            "near_duplicates_kept": facts.near_duplicates if settings.near_duplicates == "count" else None,
        },
        "settings": {
            "corpus": {n: v for n, v in asdict(settings).items() if n != "output_dir"},
            "data": {n: v for n, v in asdict(data).items() if n in OF_DATA},
        },
        **origin_facts,
        "files": {
            str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": storage.file_hash(path)}
            for path in sorted(folder.rglob("*.*"))
            if path.is_file()
        },
    }
    if tokenizer is not None:
        record["tokenizer"] = {
            "name": corpus.tokenizer_name,
            "vocabulary": len(tokenizer),
            "tokens_per_byte": round(facts.tokens / max(1, facts.kept_bytes), 4),
            "unknown_characters": unknown_characters(tokenizer, facts.kept_characters),
        }
    return redacted(record)
