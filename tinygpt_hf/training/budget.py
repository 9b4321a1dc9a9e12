"""Plan a run for a time: look at its text, measure a few steps, choose what its settings leave open.

groups, plan = plan_run(run, groups)         # the settings, with what was open; and the plan as run.json has it
"""

import os
from dataclasses import asdict, replace
from typing import Any

from tinygpt_hf.evaluation.baselines import MOST_TRAIN_TOKENS
from tinygpt_hf.model.loading import config_for
from tinygpt_hf.planning.choice import Choice, Question, advise, candidate_vocabularies, choose
from tinygpt_hf.planning.machine import Machine, NamedMachine
from tinygpt_hf.planning.memory import available_memory, needs_of_shape
from tinygpt_hf.planning.text import Text, survey, survey_rows
from tinygpt_hf.rows.build import open_rows
from tinygpt_hf.rows.preparation import find_tokenizer, rows_folder
from tinygpt_hf.settings.arguments import ModelArguments
from tinygpt_hf.settings.defaults import filled
from tinygpt_hf.settings.layering import chosen, open_settings
from tinygpt_hf.training import probe
from tinygpt_hf.training.optimizer import parameter_groups
from tinygpt_hf.training.probe import peak_memory

PROBED = ((2, 64), (3, 128), (4, 256), (12, 768))  # shapes that are measured: the wider ones where that takes little
WIDER = 8  # times longer, a wider one takes at most
LARGER = 8192  # vocabulary that the first shape is measured with a second time
PROBES, EARLY = 0.025, 0.07  # of the budget for all of them, and for a small model's first steps on the text
TOKENIZED = 150_000  # bytes of text for each second and core; more is streamed
SAMPLED = 20_000  # bytes of text for the tokenizer, for each second there is
BESIDE = 0.1  # of the time of the steps: evaluations, samples and saving among them
UNBOUNDED = 100  # seconds: what trials take as the budget where the length is given otherwise
HELD_OUT = 0.015  # of the budget, for the whole validation set once
OPENING = 2.0  # seconds: processes that tokenize start, the model is made
CLOSING = 5.0  # seconds: the last weights are saved, the report is written, the process ends
ROW_BYTES = 2  # of a token at rest
COUNTING = 30  # bytes of memory for each token of the text, while trigrams are counted
RUNNING = 80 << 20  # bytes of memory beside what a step takes: rows, evaluations, samples


def plan_run(run, groups: tuple, hardware: str | None = None, advised: bool = False) -> tuple[tuple, dict, Choice]:
    """(the settings with what was open, the plan as run.json has it, the plan in words) of a run that is about to begin.

    `hardware`: a name of the table, for another machine than this one; `advised`: say what would help most, too. Every process
    calls it; the first one looks at the text and chooses, all measure.
    """
    total, text, choice, has_tokenizer = run.clock.total, None, None, False
    groups, streamed = _streamed(run, groups)
    model, _, tokenizer, _ = groups
    if run.is_main:
        found = find_tokenizer(run.folder / "tokenizer", run.corpus, tokenizer, model.model_name_or_path)
        has_tokenizer = found is not None
        most = tokenizer.max_train_bytes
        if total is not None and "max_train_bytes" in open_settings(tokenizer):
            most = min(most, int(SAMPLED * total))
        if run.data.rows and found is not None:
            text, excerpt = survey_rows(open_rows(rows_folder(run.data.rows)), found)
        else:
            text, excerpt = survey(run.corpus, tokenizer, most, found)
        early = probe.early_losses(run.accelerator, excerpt, EARLY * (total or UNBOUNDED))
        text = replace(text, early=early, xz=excerpt.xz)
    text = _shared(run, text)
    before = peak_memory(run.accelerator.device.type)
    if hardware:
        machine: Machine = NamedMachine(hardware)
    else:
        machine = _measured(run, groups, text, PROBES * (total or UNBOUNDED))
    if run.is_main:
        question = _question(run, groups, text, machine, has_tokenizer)
        choice = choose(question)
        choice = replace(choice, advice=advise(question, choice) if advised else [])
        choice.settings.update(_held_out(run, question, choice))
        if total is not None and not has_tokenizer:
            choice.settings["max_train_bytes"] = most
        choice.settings.update(streamed)
    choice = _shared(run, choice)
    return chosen(groups, choice.settings), _facts(run, choice, before, hardware is None), choice


def _streamed(run, groups: tuple) -> tuple[tuple, dict]:
    """(the settings, what was chosen of them now): a text that takes too long to tokenize before is tokenized while training."""
    size, total, data = run.corpus.size, run.clock.total, groups[1]
    is_open = {"streaming", "max_train_samples"} <= open_settings(data) and not data.rows
    cores = run.data.num_proc or os.cpu_count() or 1
    if not is_open or total is None or size is None or size <= TOKENIZED * total * cores:
        return groups, {}
    groups = chosen(groups, {"streaming": True})
    run.corpus.data = groups[1]
    return groups, {"streaming": True}


def _shared(run, value):
    """The value of the first process."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0] if run.accelerator.num_processes > 1 else value


def _measured(run, groups: tuple, text: Text, seconds: float) -> Machine:
    """This machine, as steps of a few shapes find it."""
    model, data, _, training = groups
    vocabulary = min(text.bytes_per_token, key=lambda size: abs(size - 2048))
    is_open = run.clock.total is not None and "hidden_size" in open_settings(model) and not model.model_name_or_path
    shapes = [ModelArguments(num_hidden_layers=n, hidden_size=width) for n, width in PROBED] if is_open else [model]
    paces: list[Any] = []
    for shape in shapes:
        shape, settled = filled(shape, training)
        config = run.shape if model.model_name_or_path else config_for(shape, data, vocabulary)
        paces.append(probe.measure(run.accelerator, config, settled, data.block_size, seconds / 4))
        if paces[-1].step_seconds * WIDER * probe.FEWEST > seconds / 2:
            break
    larger, most = None, min(LARGER, max(candidate_vocabularies(text)))
    if is_open and most > vocabulary:
        shape, settled = filled(shapes[0], training)
        config = config_for(shape, data, most)
        larger = probe.measure(run.accelerator, config, settled, data.block_size, seconds / 4)
    return Machine(paces, run.accelerator.num_processes, larger)


def _question(run, groups: tuple, text: Text, machine: Machine, has_tokenizer: bool) -> Question:
    model, data, tokenizer, training = groups
    is_open, total = open_settings(*groups), run.clock.total
    if has_tokenizer or tokenizer.tokenizer_type in ("char", "byte"):
        is_open -= {"vocab_size"}
    if model.model_name_or_path:
        is_open -= {"hidden_size", "num_hidden_layers"}
    left = None
    if total is not None:
        reading = OPENING + (0 if data.streaming else text.encoding * (text.num_bytes + text.held_out))
        left = (total * (1 - HELD_OUT) - run.clock.seconds - reading - CLOSING) / (1 + BESIDE)

    def needs(config, training, block_size: int):
        return needs_of_shape(config, training, block_size, lambda net: parameter_groups(net, training))

    free = machine.memory or available_memory(run.accelerator.device.type)[0]
    return Question(model, data, tokenizer, training, text, machine, left, is_open, needs, free)


def _held_out(run, question: Question, choice: Choice) -> dict[str, Any]:
    """What is held out, where that is open: so much that to evaluate it takes little of the time."""
    text, total = question.text, run.clock.total
    if total is None:
        return {}
    if question.data.streaming:  # a few long documents may be all there is to begin with, and none of them held out
        return {"validation_split": "tail"} if text.in_pieces and "validation_split" in question.open else {}
    whole = choice.evaluation_seconds * text.held_out / text.bytes_per_token[choice.vocabulary]
    if "validation_split_percentage" not in question.open or whole <= HELD_OUT * total:
        return {}
    share = question.data.validation_split_percentage * HELD_OUT * total / whole
    return {"validation_split_percentage": float(f"{share:.2g}")}


def _facts(run, choice: Choice, memory_before: int, is_here: bool) -> dict:
    """The plan as run.json has it."""
    device, needed = run.accelerator.device.type, run.clock.seconds + choice.steps * choice.step_seconds * (1 + BESIDE)
    memory = choice.memory
    if is_here and device != "cuda":  # beside what the program takes
        counted = COUNTING * min(choice.tokens / choice.epochs, MOST_TRAIN_TOKENS)
        memory = max(memory_before + max(choice.memory + RUNNING, round(counted)), peak_memory(device))
    is_whole = run.clock.total is not None and not choice.is_enough
    limit = choice.groups[3].save_total_limit + 1
    return {
        "seconds": round(run.clock.total if is_whole else needed + OPENING + CLOSING, 1),
        "memory_bytes": memory,
        "parameters": choice.parameters,
        "train_tokens": choice.tokens,
        "epochs": round(choice.epochs, 3),
        **{name: round(value, 4) for name, value in asdict(choice.expected).items()},
        "operations": choice.operations,
        "disk_bytes": limit * choice.disk + ROW_BYTES * round(choice.tokens / choice.epochs),
        "steps": choice.steps,
        "step_seconds": choice.step_seconds,
        "evaluation_seconds": choice.evaluation_seconds,
        "is_enough": choice.is_enough,
        "settings": choice.settings,
    }
