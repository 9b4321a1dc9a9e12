"""train(): the training loop, from settings to a finished run folder. Pretraining and chat tuning differ only in labels.

    from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments, train

    result = train(
        ModelArguments(hidden_size=128, num_hidden_layers=4, num_attention_heads=4),
        DataArguments(train_file=["my.txt"], block_size=128),
        TokenizerArguments(vocab_size=2048),
        TrainingArguments(output_dir="runs/mine", max_steps=500),
    )
    result.eval_loss                                   # nats per token over the whole validation set

Each method of `Run` is in run.py, in this order. There are no callbacks or hooks.
"""

import dataclasses

from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.settings.arguments import ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.training.run import Run


@dataclasses.dataclass
class TrainResult:
    """Results of a finished run.

    Losses are nats per token over the whole validation set: `eval_loss` of the last weights, `best_loss` of those in `best/`.
    `seconds` counts the training steps of this call only. Evaluations with samples, checkpoints and the final evaluation are
    counted in the other three.
    """

    output_dir: str
    steps: int
    tokens: int
    parameters: int
    eval_loss: float
    eval_perplexity: float
    eval_bits_per_byte: float | None
    best_loss: float
    best_step: int
    seconds: float
    evaluation_seconds: float = 0.0
    saving_seconds: float = 0.0
    final_evaluation_seconds: float = 0.0
    already_finished: bool = False


def train(
    model: ModelArguments | None = None,
    data=None,
    tokenizer: TokenizerArguments | None = None,
    training: TrainingArguments | None = None,
    quiet: bool = False,
    seconds_before: float = 0.0,
) -> TrainResult:
    """Train a model in the folder `training.output_dir`, or resume the run in it, and return the results.

    `data`: DataArguments, whose `train_file` and `validation_file` also accept text held in Python (python_text.py); or such
    text itself, such as a list of strings. `seconds_before`: seconds the command took before, counted in the time budget.

    Raises UsageError for wrong settings or data, RunError for a failure while running, and Interrupted after a signal. In
    each case all checkpoints written so far are complete, and the same call resumes from the newest.
    """
    model, data = model or ModelArguments(), data_arguments(data)
    groups = model, data, tokenizer or TokenizerArguments(), training or TrainingArguments()
    run = Run(groups, quiet, seconds_before)
    with run:
        run.prepare()
        if result := run.known_result():
            return TrainResult(**result)
        run.begin_or_resume()
        while run.has_steps_left():
            run.train_step()
            if run.is_due(run.training.logging_steps):
                run.log_step()
            if run.is_due(run.plan.eval_steps):
                run.evaluate()
            run.keep_snapshot()
            if run.is_due(run.plan.save_steps):
                run.save()
        result = TrainResult(**run.results())
        run.finish(result)
    run.close()
    return result
