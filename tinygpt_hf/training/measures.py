"""Measurements during training: metrics on the validation set, and samples of generated text."""

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

EVALUATION_EPOCH = -1  # a number no training epoch has, to draw the rows of a partial evaluation
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR")  # prefixes of Unicode names
LEADING_VOWELS = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4"  # of Thai and Lao
MAX_CHARACTER_TOKENS = 4  # a character has at most four bytes


@torch.no_grad()
def evaluate(run, network, part: int | None = None) -> dict[str, float | int | None]:
    """Return the loss (nats per token), perplexity, bits per byte, accuracy and entropy (bits per token) of `network`.

    They are computed over the validation set of a run, each token once. `part`: evaluate only this many rows, drawn by the
    seed; `eval_rows` is then added to the result. If these rows have no supervised token, all rows are evaluated.
    """
    network.eval()
    view, accelerator = run.held_out_view, run.accelerator
    size = run.training.per_device_eval_batch_size or run.state.micro_batch
    processes, total = accelerator.num_processes, len(view)
    chosen = np.arange(total)
    if part is not None:
        chosen = np.sort(order.permuted(np.arange(part), total, run.training.seed, EVALUATION_EPOCH))
        total = part
    first, count = order.share(0, total, processes, accelerator.process_index)
    sums = MetricSums()
    # under FSDP every process must take part in each forward pass: all run as many as the one with the most rows
    most = -(-total // processes)
    for start in range(first, first + most, size):
        own = range(start, min(start + size, first + count))
        indices = chosen[own or [first]]
        input_ids, labels = (torch.from_numpy(array) for array in view.batch(indices))
        positions = torch.from_numpy(view.position_ids(indices)) if run.data.document_mask else None
        with accelerator.autocast():
            batch = batch_sums(network, input_ids, labels, positions)
        sums += batch if own else MetricSums()
    network.train()
    if processes > 1:
        parts = torch.tensor(sums.to_list(), dtype=exact_dtype(accelerator), device=accelerator.device)
        sums = MetricSums.from_list(accelerator.reduce(parts, "sum"))
    if part is not None and not sums.tokens:  # rows of conversations may have no supervised token
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
    """Return the mean number of text bytes per supervised token, or 0 if the bytes were not counted."""
    return rows.num_bytes / max(rows.num_targets, 1)


def best_loss_over_all_rows(run) -> float | None:
    """Return the loss of the best weights of a run over the whole validation set, in nats per token."""
    state = run.state
    if state.eval_rows is None or state.best_step is None:
        return state.best_loss
    if state.best_step == state.step:
        return state.last_evaluation["eval_loss"]
    run.accelerator.wait_for_everyone()  # the main process may still be writing them
    _, net = open_pretrained(str(run.folder / "best"), dtype=torch.float32)
    net.to(run.accelerator.device)
    net.set_attn_implementation(run.raw.config._attn_implementation)
    return evaluate(run, net)["eval_loss"]


def sample_prompts(tok, rows: Rows, training: TrainingArguments) -> list[list[int]]:
    """Return the token ids of the prompts in the settings, or of the first two validation documents' openings."""
    if training.sample_prompts:
        return [list(encode_prompt(tok, prompt)) for prompt in training.sample_prompts]
    return [_opening(tok, rows, number) for number in range(min(2, rows.num_documents))]


def _opening(tok, rows: Rows, number: int) -> list[int]:
    """Return the first tokens of a document up to a word end, or of a conversation up to the first assistant answer."""
    ids = rows.opening(number).tolist()
    if not rows.targets(number)[0]:
        return ids
    longer = rows.document(number)[: len(ids) + MAX_CHARACTER_TOKENS].tolist()
    texts = [tok.decode(longer[:count], skip_special_tokens=True) for count in range(len(longer) + 1)]
    whole = [k for k in range(len(ids), 0, -1) if not texts[k].endswith("\ufffd")]  # no character is cut
    length = whole[0] if whole else len(ids)
    return ids[: next((k for k in whole if _ends_a_word(texts[k], texts[-1])), length)]


def _ends_a_word(text: str, longer: str) -> bool:
    """Return True if `text` ends at the end of a word of `longer`, which begins with it."""
    if not text or text[-1].isspace():
        return False
    last, after = text[-1], longer.removeprefix(text)[:1] or " "
    is_joined = unicodedata.category(after)[0] == "M" or "\u200d" in (last, after)
    if is_joined:  # within one character: before an accent or a vowel sign, in a joined emoji
        return False
    if not (_is_word_character(last) and _is_word_character(after)):
        return True
    # scripts without spaces: any character may end the prompt, except a vowel written before its consonant
    return any(unicodedata.name(c, "").startswith(SPACELESS) for c in (last, after)) and last not in LEADING_VOWELS


def _is_word_character(c: str) -> bool:
    return c.isalnum() or c in "\ufffd'\u2019" or unicodedata.category(c)[0] == "M"


def sample(net, tok, prompts: list[list[int]], length: int) -> list[dict[str, str]]:
    """Continue each prompt (token ids) by `length` tokens. Returns a dict with `prompt` and `text` for each."""
    if length == 0:
        return []
    net.eval()
    samples = continue_prompts(net, tok, prompts, length)
    net.train()
    return samples
