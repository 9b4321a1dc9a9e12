"""What is measured on the way: the loss over the whole validation set, and what the model says now."""

import torch

from tinygpt_hf.evaluation.metrics import MetricSums, batch_sums
from tinygpt_hf.inference.generation import continue_prompts, encode_prompt
from tinygpt_hf.rows import order
from tinygpt_hf.rows.store import Rows
from tinygpt_hf.settings.arguments import DataArguments, TrainingArguments
from tinygpt_hf.training.precision import exact_dtype


@torch.no_grad()
def evaluate(
    forward, rows: Rows, data: DataArguments, training: TrainingArguments, micro_batch: int, accelerator
) -> dict[str, float | None]:
    """Loss, perplexity, bits per byte and accuracy over the whole validation set, each token once, the same every time."""
    forward.eval()
    size = training.per_device_eval_batch_size or micro_batch
    processes, total = accelerator.num_processes, rows.count(data.block_size)
    first, count = order.share(0, total, processes, accelerator.process_index)
    sums = MetricSums()
    most = -(
        -total // processes
    )  # forwards are counted by the largest share: in FSDP every process must take part in each
    for start in range(first, first + most, size):
        inside = range(start, min(start + size, first + count))
        shown = inside or [first]
        input_ids, labels = (torch.from_numpy(part) for part in rows.batch(shown, data.block_size))
        positions = torch.from_numpy(rows.position_ids(shown, data.block_size)) if data.document_mask else None
        with accelerator.autocast():
            part = batch_sums(forward, input_ids, labels, positions)
        sums += part if inside else MetricSums()
    forward.train()
    if accelerator.num_processes > 1:
        parts = torch.tensor(sums.to_list(), dtype=exact_dtype(accelerator), device=accelerator.device)
        sums = MetricSums.from_list(accelerator.reduce(parts, "sum"))
    sums.bytes = rows.num_bytes
    return {
        "eval_loss": sums.loss,
        "eval_perplexity": sums.perplexity,
        "eval_bits_per_byte": sums.bits_per_byte if sums.bytes else None,
        "eval_accuracy": sums.accuracy,
    }


def sample_prompts(tok, rows: Rows, training: TrainingArguments) -> list[list[int]]:
    """Token ids: the prompts of the settings, else the beginnings of the first documents held out."""
    if training.sample_prompts:
        return [list(encode_prompt(tok, prompt)) for prompt in training.sample_prompts]
    return [rows.opening(number).tolist() for number in range(min(2, rows.num_documents))]


def sample(net, tok, prompts: list[list[int]], training: TrainingArguments) -> list[dict[str, str]]:
    """The prompts as the model continues them now."""
    if training.sample_tokens == 0:
        return []
    net.eval()
    samples = continue_prompts(net, tok, prompts, training.sample_tokens)
    net.train()
    return samples
