"""Run benchmark tasks on a model, each with its chance level and a 95 % interval.

    tasks = read_tasks(["blimp", "basics"], "my_tasks")         # a UsageError names what is missing or broken, file and line
    results = {name: task(model, tokenizer) for name, task in tasks.items()}
    results["blimp"]["accuracy"], results["blimp"]["low"], results["blimp"]["high"], results["blimp"]["chance"]

A task's data is in `tasks_dir`: TASK*.jsonl, or *.jsonl in a folder TASK. For blimp, any other *.jsonl, else the Hub's data.

    blimp      {"sentence_good", "sentence_bad", "UID"}              minimal pairs (minimal_pairs.py)
    cloze      {"text": "The ____ barks.", "choices": ["dog", "cat"], "answer": "dog"}     the likeliest full text is chosen
    last_word  {"text": "..."}                                       as LAMBADA: greedy decoding must give the last word
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.basics import BASICS, Item, basics
from tinygpt_hf.evaluation.harness import PREFIX, harness_task
from tinygpt_hf.evaluation.intervals import share
from tinygpt_hf.evaluation.metrics import IGNORED
from tinygpt_hf.evaluation.minimal_pairs import (
    by_group,
    choice_outcomes,
    parse_pair,
    read_lines,
    read_pairs,
    row_scores,
    start_token,
    text_of,
)
from tinygpt_hf.inference.engine import common_prefix
from tinygpt_hf.inference.generation import context_length
from tinygpt_hf.reading.formats import first_words
from tinygpt_hf.reading.sources import Source, open_dataset

BLANK = "____"
BLIMP = "nyu-mll/blimp"
CLOZE = f'{{"text": "The {BLANK} barks.", "choices": ["dog", "cat"], "answer": "dog"}}'
LAST_WORD = '{"text": "a passage of two words or more"}'
Task = Callable[..., dict]  # (model, tokenizer) -> its results


def read_tasks(names: list[str], tasks_dir: str | None) -> dict[str, Task]:
    """Read the data of tasks and return, by name, a function that runs each. `basics` stands for all of basics.py.

    Raises a `UsageError` for an unknown task and for missing or invalid data.
    """
    folder = Path(tasks_dir) if tasks_dir else None
    if folder and not folder.is_dir():
        raise UsageError(f"--tasks_dir {folder} is no folder", "a folder with the tasks' data", "check the path")
    tasks: dict[str, Task] = {}
    for name in (inner for given in names for inner in (BASICS if given == "basics" else (given,))):
        if name in BASICS:
            tasks[name] = partial(choice_task, basics(name))
        elif name in READERS:
            tasks[name] = READERS[name](name, folder)
        elif name.startswith(PREFIX):
            tasks[name] = harness_task(name.removeprefix(PREFIX), folder)
        else:
            known = ", ".join([*READERS, "basics", *BASICS, f"{PREFIX}NAME"])
            raise UsageError(f"there is no task {name!r}", f"one of {known}", "check the spelling")
    return tasks


def choice_task(items: list[Item], model, tokenizer) -> dict:
    """Compute the accuracy with which the model finds the right text of each item likeliest."""
    groups = [item.group for item in items]
    results = by_group(groups, choice_outcomes(model, tokenizer, [item.texts for item in items]))
    chance = by_group(groups, [1 / len(item.texts) for item in items])["accuracy"]
    return results | {"chance": chance, "items": len(items)}


def _files(name: str, folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    return sorted({*folder.glob(f"{name}*.jsonl"), *folder.glob(f"{name}/*.jsonl")})


def _without_data(name: str, why: str = "") -> UsageError:
    return UsageError(f"the task {name} has no data{why}", f"{name}.jsonl in a folder", "give --tasks_dir")


def _blimp(name: str, folder: Path | None) -> Task:
    others = {path for task in READERS if task != name for path in _files(task, folder)}
    files = _files(name, folder) or sorted({*(folder.glob("*.jsonl") if folder else ())} - others)
    pairs = [pair for path in files for pair in read_pairs(path)] or _download_blimp(name)
    return partial(choice_task, [Item((pair["sentence_good"], pair["sentence_bad"]), pair["UID"]) for pair in pairs])


def _download_blimp(name: str) -> list[dict[str, str]]:
    from datasets import get_dataset_config_names

    try:
        paradigms = get_dataset_config_names(BLIMP)
        rows = [(p, row) for p in paradigms for row in open_dataset(Source(dataset_name=BLIMP, dataset_config_name=p))]
    except Exception as error:  # datasets, huggingface_hub and requests have their own errors
        raise _without_data(name, f", and {BLIMP} cannot be loaded ({first_words(error)})") from error
    return [parse_pair(row, f"{BLIMP}, {paradigm}") for paradigm, row in rows]


def _cloze(name: str, folder: Path | None) -> Task:
    def parse(row: dict, where: str) -> Item:
        text, answer = (text_of(row, field, where, CLOZE) for field in ("text", "answer"))
        choices = row.get("choices")
        is_list = isinstance(choices, list) and len(choices) >= 2
        if not is_list or len({*map(str, choices)} - {answer}) != len(choices) - 1:
            raise UsageError(f"{where} has no choices with the answer once among them", CLOZE, "fix or remove it")
        if text.count(BLANK) != 1:
            raise UsageError(f"{where} has {text.count(BLANK)} blanks ({BLANK}) in text", CLOZE, "fix or remove it")
        wrong = [str(choice) for choice in choices if choice != answer]
        return Item(tuple(text.replace(BLANK, choice) for choice in (answer, *wrong)), str(row.get("UID", name)))

    files = _files(name, folder)
    if not files:
        raise _without_data(name)
    return partial(choice_task, [item for path in files for item in read_lines(path, parse, CLOZE)])


def _last_word(name: str, folder: Path | None) -> Task:
    def parse(row: dict, where: str) -> str:
        text = text_of(row, "text", where, LAST_WORD).rstrip()
        if len(text.split()) < 2:
            raise UsageError(f"{where} has one word", LAST_WORD, "fix or remove it")
        return text

    files = [*_files(name, folder), *_files("lambada", folder)]
    if not files:
        raise _without_data(name)
    return partial(last_word_task, [text for path in files for text in read_lines(path, parse, LAST_WORD)])


READERS: dict[str, Callable[[str, Path | None], Task]] = {"blimp": _blimp, "last_word": _last_word, "cloze": _cloze}


def last_word_task(texts: list[str], model, tokenizer) -> dict:
    """Compute the accuracy and perplexity with which the model predicts the last word of each text.

    A word counts as right if each of its tokens is the likeliest. `chance` is the accuracy of a uniform distribution over
    the vocabulary. A text longer than the context loses its beginning.
    """
    start, room, vocabulary = start_token(tokenizer), context_length(model), model.config.get_text_config().vocab_size
    rows = []
    for text in texts:
        context = text.rsplit(None, 1)[0]
        options = {"add_special_tokens": False, "split_special_tokens": True}
        ids, known = (tokenizer(part, **options)["input_ids"] for part in (text, context))
        known_count = common_prefix(ids, known)
        inputs, targets = [start, *ids[:-1]], [IGNORED] * known_count + ids[known_count:]
        rows.append((inputs[-room:], targets[-room:]) if room else (inputs, targets))
    measured = list(row_scores(model, rows))
    nats = sum(loss for _, loss, _ in measured)
    accuracy, low, high = share({"": [float(is_right) for _, _, is_right in measured]})
    chance = sum(vocabulary ** -float(sum(t != IGNORED for t in targets)) for _, targets in rows) / len(rows)
    results = {"accuracy": accuracy, "low": low, "high": high, "chance": chance, "items": len(texts)}
    return results | {"perplexity": math.exp(min(nats / len(rows), 700))}
