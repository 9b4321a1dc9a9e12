"""Run tasks of lm-evaluation-harness on a loaded model.

task = harness_task("blimp", None)              # a task of `lm_eval`, or of a YAML file in the given folder
task(model, tokenizer)                          # {"acc": 0.8, "acc_stderr": 0.01, ...}
"""

import contextlib
import io
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.reading.formats import first_words

PREFIX = "lm_eval:"


def harness_task(name: str, folder: Path | None) -> Callable[..., dict]:
    """Return a function (model, tokenizer) -> results that runs a task; raise a `UsageError` if there is no such task."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UsageError(
            f"lm_eval cannot be imported ({first_words(error)})",
            f"it, for {PREFIX}{name}",
            "run pip install 'tinygpt_hf[eval]'",
        ) from None
    manager = TaskManager(include_path=str(folder) if folder else None)
    if not manager.match_tasks([name]):
        raise UsageError(
            f"lm_eval has no task {name!r}", "one of its tasks, or a YAML in --tasks_dir", "check the name"
        )
    return partial(_run, name, manager)


def _run(name: str, manager, model, tokenizer) -> dict:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        # hide lm_eval's own tables and progress bars
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
            found = simple_evaluate(model=wrapped, tasks=[name], task_manager=manager, bootstrap_iters=1000)
    except Exception as error:  # a task may raise anything: no network, a broken YAML
        raise RunError(f"{PREFIX}{name} failed ({first_words(error)})") from error
    numbers = found["results"].get(name) or found["groups"][name]
    return {
        key.removesuffix(",none"): value
        for key, value in numbers.items()
        if isinstance(value, (int, float)) and key != "sample_len"
    }
