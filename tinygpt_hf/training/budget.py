"""Plan a run: survey its text, time a few steps, and choose the settings that were not given.

groups, plan, choice = plan_run(run, groups)       # complete settings; the plan for run.json; the plan as a table
"""

import os
from dataclasses import asdict, replace
from typing import Any

from accelerate.utils import broadcast_object_list

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

TRIAL_SHAPES = ((2, 64), (3, 128), (4, 256), (12, 768))  # (layers, width), timed in this order while time allows
NEXT_SHAPE_RATIO = 8  # a step of the next shape takes at most this many times as long
LARGER_VOCABULARY = 8192  # with which the first shape is timed a second time
TRIALS_SHARE = 0.025  # of the budget, for all trials
EARLY_SHARE = 0.07  # of the budget, for a small model's first steps on the text
TOKENIZED = 150_000  # bytes of text per second of the budget and core; a larger text is streamed
SAMPLED = 20_000  # bytes of text for the tokenizer per second of the budget
OVERHEAD = 0.1  # of the time of the steps: evaluations, samples and checkpoints
DEFAULT_BUDGET = 100  # seconds, for the shares above if there is no time budget
HELD_OUT = 0.015  # of the budget, to evaluate the whole validation set once
OPENING = 2.0  # seconds to start processes for tokenizing and to build the model
CLOSING = 5.0  # seconds to save the last weights, write the report and end the process
ROW_BYTES = 2  # of a stored token
COUNTING = 30  # bytes of memory per token of the text while trigrams are counted for the baselines
RUNNING = 80 << 20  # bytes of memory in addition to a step: rows, evaluations, samples
LOGITS = 4 * 4 * 256  # bytes per vocabulary entry: four float32 arrays of the 256 rows whose logits exist at once


def plan_run(run, groups: tuple, hardware: str | None = None, advised: bool = False) -> tuple[tuple, dict, Choice]:
    """Plan a run before it starts. Returns (complete settings, the plan for run.json, the plan as a table).

    `hardware`: a name from the table of machines, instead of timing steps on this one. `advised`: add advice on what would
    help most. Every process calls it: all time steps, the main one surveys the text and chooses.
    """
    total, text, choice, has_tokenizer = run.clock.total, None, None, False
    groups, streamed = _choose_streaming(run, groups)
    model, _, tokenizer, _ = groups
    if run.is_main:
        found = find_tokenizer(run.folder / "tokenizer", run.corpus, tokenizer, model.model_name_or_path)
        has_tokenizer = found is not None
        sample_bytes = tokenizer.max_train_bytes
        if total is not None and "max_train_bytes" in open_settings(tokenizer):
            sample_bytes = min(sample_bytes, int(SAMPLED * total))
        if run.data.rows and found is not None:
            text, excerpt = survey_rows(open_rows(rows_folder(run.data.rows)), found)
        else:
            text, excerpt = survey(run.corpus, tokenizer, sample_bytes, found)
        early = probe.early_losses(run.accelerator, excerpt, EARLY_SHARE * (total or DEFAULT_BUDGET))
        text = replace(text, early=early, xz=excerpt.xz)
    text = broadcast_object_list([text])[0]  # from the main process
    memory_before = peak_memory(run.accelerator.device.type)
    if hardware:
        machine: Machine = NamedMachine(hardware)
    else:
        machine = _time_trials(run, groups, text, TRIALS_SHARE * (total or DEFAULT_BUDGET))
    if run.is_main:
        question = _question(run, groups, text, machine, has_tokenizer)
        choice = choose(question)
        choice = replace(choice, advice=advise(question, choice) if advised else [])
        choice.settings.update(_choose_validation(run, question, choice))
        if total is not None and not has_tokenizer:
            choice.settings["max_train_bytes"] = sample_bytes
        choice.settings.update(streamed)
    choice = broadcast_object_list([choice])[0]
    return chosen(groups, choice.settings), _plan_facts(run, choice, memory_before, hardware is None), choice


def _choose_streaming(run, groups: tuple) -> tuple[tuple, dict]:
    """Turn on streaming if the text takes too long to tokenize before training. Returns (settings, those chosen here)."""
    size, total, data = run.corpus.size, run.clock.total, groups[1]
    is_open = {"streaming", "max_train_samples"} <= open_settings(data) and not data.rows
    cores = run.data.num_proc or os.cpu_count() or 1
    if not is_open or total is None or size is None or size <= TOKENIZED * total * cores:
        return groups, {}
    groups = chosen(groups, {"streaming": True})
    run.corpus.data = groups[1]
    return groups, {"streaming": True}


def _time_trials(run, groups: tuple, text: Text, seconds: float) -> Machine:
    """Time a few steps of models of several shapes on this machine, for about `seconds` in all."""
    model, data, _, training = groups
    vocabulary = min(text.bytes_per_token, key=lambda size: abs(size - 2048))
    is_open = run.clock.total is not None and "hidden_size" in open_settings(model) and not model.model_name_or_path
    shapes = [model]
    if is_open:
        shapes = [ModelArguments(num_hidden_layers=layers, hidden_size=width) for layers, width in TRIAL_SHAPES]
    paces: list[Any] = []
    for shape in shapes:
        shape, settled = filled(shape, training)
        config = run.shape if model.model_name_or_path else config_for(shape, data, vocabulary)
        paces.append(probe.measure(run.accelerator, config, settled, data.block_size, seconds / 4))
        if paces[-1].step_seconds * NEXT_SHAPE_RATIO * probe.FEWEST > seconds / 2:
            break
    larger, most = None, min(LARGER_VOCABULARY, max(candidate_vocabularies(text)))
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
    steps_seconds = None
    if total is not None:
        reading = OPENING + (0 if data.streaming else text.encoding * (text.num_bytes + text.held_out))
        steps_seconds = (total * (1 - HELD_OUT) - run.clock.seconds - reading - CLOSING) / (1 + OVERHEAD)

    def needs(config, training, block_size: int):
        return needs_of_shape(config, training, block_size, lambda net: parameter_groups(net, training))

    free = machine.memory or available_memory(run.accelerator.device.type)[0]
    return Question(model, data, tokenizer, training, text, machine, steps_seconds, is_open, needs, free)


def _choose_validation(run, question: Question, choice: Choice) -> dict[str, Any]:
    """Choose the settings of the validation split, so that evaluating it takes little of the time budget."""
    text, total = question.text, run.clock.total
    if total is None:
        return {}
    if question.data.streaming:  # with few long documents, a random split could leave the validation set empty at first
        return {"validation_split": "tail"} if text.in_pieces and "validation_split" in question.open else {}
    whole = choice.evaluation_seconds * text.held_out / text.bytes_per_token[choice.vocabulary]
    if "validation_split_percentage" not in question.open or whole <= HELD_OUT * total:
        return {}
    share = question.data.validation_split_percentage * HELD_OUT * total / whole
    return {"validation_split_percentage": float(f"{share:.2g}")}


def _plan_facts(run, choice: Choice, memory_before: int, is_here: bool) -> dict:
    """Return the plan as stored in run.json."""
    device, memory = run.accelerator.device.type, choice.memory
    needed = run.clock.seconds + choice.steps * choice.step_seconds * (1 + OVERHEAD)
    if is_here and device != "cuda":  # on the CPU, what the process uses already counts too
        counting = COUNTING * min(choice.tokens / choice.epochs, MOST_TRAIN_TOKENS)
        running = choice.memory + RUNNING + LOGITS * choice.vocabulary
        memory = max(memory_before + max(running, round(counting)), peak_memory(device))
    uses_budget = run.clock.total is not None and not choice.is_enough
    limit = choice.groups[3].save_total_limit + 1
    return {
        "seconds": round(run.clock.total if uses_budget else needed + OPENING + CLOSING, 1),
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
