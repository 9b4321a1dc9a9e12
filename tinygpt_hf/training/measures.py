"""What is measured on the way: the loss over the validation set or a part of it, and what the model says now."""

import unicodedata

import numpy as np
import torch

from tinygpt_hf.evaluation.metrics import MetricSums, batch_sums
from tinygpt_hf.inference.generation import continue_prompts, encode_prompt
from tinygpt_hf.model.loading import open_pretrained
from tinygpt_hf.rows import order
from tinygpt_hf.rows.store import Rows
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.training.precision import exact_dtype

EVALUATION = -1  # stands where an epoch does: the rows of a part are drawn as no epoch's are
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts, as names begin
LEADING = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # vowels of Thai and Lao
LONGEST_SIGN = 4  # tokens: bytes of a character


@torch.no_grad()
def evaluate(run, network, part: int | None = None) -> dict[str, float | int | None]:
    """Loss, perplexity, bits per byte, accuracy and entropy (bits per token) of `network` over the whole validation set of a run,
    each token once, the same every time.

    `part`: over so many of its rows, drawn by the seed. They have `eval_rows` beside them, and the bytes that fall to them.
    A part without a target says nothing: then all rows are taken.
    """
    network.eval()
    view, accelerator = run.held_out_view, run.accelerator
    size = run.training.per_device_eval_batch_size or run.state.micro_batch
    processes, total = accelerator.num_processes, len(view)
    chosen = np.arange(total)
    if part is not None:
        chosen = np.sort(order.permuted(np.arange(part), total, run.training.seed, EVALUATION))
        total = part
    first, count = order.share(0, total, processes, accelerator.process_index)
    sums = MetricSums()
    # forwards are counted by the largest share: in FSDP every process must take part in each
    most = -(-total // processes)
    for start in range(first, first + most, size):
        inside = range(start, min(start + size, first + count))
        shown = chosen[inside or [first]]
        input_ids, labels = (torch.from_numpy(array) for array in view.batch(shown))
        positions = torch.from_numpy(view.position_ids(shown)) if run.data.document_mask else None
        with accelerator.autocast():
            batch = batch_sums(network, input_ids, labels, positions)
        sums += batch if inside else MetricSums()
    network.train()
    if processes > 1:
        parts = torch.tensor(sums.to_list(), dtype=exact_dtype(accelerator), device=accelerator.device)
        sums = MetricSums.from_list(accelerator.reduce(parts, "sum"))
    if part is not None and not sums.tokens:  # rows of conversations may hold no target
        return evaluate(run, network)
    rows = view.rows
    sums.bytes = rows.num_bytes if part is None else round(rows.num_bytes * sums.tokens / max(rows.num_targets, 1))
    return {
        "eval_loss": sums.loss,
        "eval_perplexity": sums.perplexity,
        "eval_bits_per_byte": sums.bits_per_byte if sums.bytes else None,
        "eval_accuracy": sums.accuracy,
        "eval_entropy": sums.entropy,
        **({} if part is None else {"eval_rows": part}),
    }


def bytes_per_token(rows: Rows) -> float:
    """How many bytes of text a supervised token stands for, on average; 0 where nobody counted them."""
    return rows.num_bytes / max(rows.num_targets, 1)


def whole_best_loss(run) -> float | None:
    """The loss of the best weights of a run over the whole validation set."""
    state = run.state
    if state.eval_rows is None or state.best_step is None:
        return state.best_loss
    if state.best_step == state.step:
        return state.last_evaluation["eval_loss"]
    run.accelerator.wait_for_everyone()  # the first process may still be writing them
    _, net = open_pretrained(str(run.folder / "best"), dtype=torch.float32)
    net.to(run.accelerator.device)
    net.set_attn_implementation(run.raw.config._attn_implementation)
    return evaluate(run, net)["eval_loss"]


def sample_prompts(tok, rows: Rows, training: TrainingArguments) -> list[list[int]]:
    """Token ids: the prompts of the settings, else the beginnings of the first documents held out."""
    if training.sample_prompts:
        return [list(encode_prompt(tok, prompt)) for prompt in training.sample_prompts]
    return [_opening(tok, rows, number) for number in range(min(2, rows.num_documents))]


def _opening(tok, rows: Rows, number: int) -> list[int]:
    """How a document begins, up to the end of a word; of a conversation, everything before the assistant's first word."""
    ids = rows.opening(number).tolist()
    if not rows.targets(number)[0]:
        return ids
    following = rows.document(number)[: len(ids) + LONGEST_SIGN].tolist()
    texts = [tok.decode(following[:count], skip_special_tokens=True) for count in range(len(following) + 1)]
    whole = [k for k in range(len(ids), 0, -1) if not texts[k].endswith("\ufffd")]
    return ids[: next((k for k in whole if _ends_a_word(texts[k], texts[-1])), (whole or [len(ids)])[0])]


def _ends_a_word(text: str, longer: str) -> bool:
    """Does a text, not empty, end where a word does? `longer`: the same as it goes on."""
    if not text or text[-1].isspace():
        return False
    last, after = text[-1], longer.removeprefix(text)[:1] or " "
    is_joined = unicodedata.category(after)[0] == "M" or "\u200d" in (last, after)
    if is_joined:  # signs of one letter: a vowel, an accent, a joined emoji
        return False
    if not (_is_of_a_word(last) and _is_of_a_word(after)):
        return True
    # where no space parts words, a reader takes any whole sign; a leading vowel belongs to what follows
    return any(unicodedata.name(c, "").startswith(SPACELESS) for c in (last, after)) and last not in LEADING


def _is_of_a_word(c: str) -> bool:
    return c.isalnum() or c in "\ufffd'\u2019" or unicodedata.category(c)[0] == "M"


def sample(net, tok, prompts: list[list[int]], length: int) -> list[dict[str, str]]:
    """The prompts as the model continues them now, by `length` tokens."""
    if length == 0:
        return []
    net.eval()
    samples = continue_prompts(net, tok, prompts, length)
    net.train()
    return samples
