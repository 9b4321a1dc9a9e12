"""train(): from settings to a finished run folder, the story in order. Pretraining and chat tuning differ in labels only.

    from tinygpt_hf import DataArguments, ModelArguments, TokenizerArguments, TrainingArguments, train

    result = train(
        ModelArguments(hidden_size=128, num_hidden_layers=4, num_attention_heads=4),
        DataArguments(train_file=["my.txt"], block_size=128),
        TokenizerArguments(vocab_size=2048),
        TrainingArguments(output_dir="runs/mine", max_steps=500),
    )
    result.eval_loss                                   # nats per token over the whole validation set

What each line does stands in run.py, in this order. Nothing is hooked in anywhere: what happens is a line of the loop.
"""

import dataclasses

from tinygpt_hf.reading.python_text import data_arguments
from tinygpt_hf.settings.arguments import ModelArguments, TokenizerArguments, TrainingArguments
from tinygpt_hf.training.run import Run


@dataclasses.dataclass
class TrainResult:
    """A finished run. Losses are nats per token over the whole validation set: `eval_loss` of the last weights, `best_loss` of
    those in `best/`. `seconds` are those of this call's training loop; evaluations, samples and saving were beside it, and
    after it the final evaluation."""

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
    """Train as the settings say into `training.output_dir`, going on from what it holds; returns what was reached.

    `data`: DataArguments, in whose `train_file` and `validation_file` a text that lives in Python may stand (python_text.py); or
    such a text alone, a list of texts too. `seconds_before`: what the command has taken so far, for its time budget.

    Raises UsageError for what the settings or the data have wrong, RunError for a failure on the way, Interrupted after a
    signal. Whatever is raised, every checkpoint written before is complete, and the same call goes on from the newest.
    """
    model, data = model or ModelArguments(), data_arguments(data)
    groups = model, data, tokenizer or TokenizerArguments(), training or TrainingArguments()
    run = Run(groups, quiet, seconds_before)
    with run:
        run.prepare()
        if run.is_finished:
            return TrainResult(**run.known_result())
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
