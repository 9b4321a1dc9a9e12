"""Compare the metrics with direct computations, one token at a time."""

import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation import metrics
from tinygpt_hf.evaluation.metrics import MetricSums, batch_sums, block_sums, evaluate_file
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer

CONTEXT = 16


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cat sat on the mat and the dog ran, naïve café 日本語 " * 20], "bpe", vocab_size=300)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).eval()
    with torch.no_grad():  # a fresh model is almost uniform; this one has opinions
        for weight in model.parameters():
            weight.mul_(3)
    return model


class Bigram(torch.nn.Module):
    """A bigram model with a table p(next | current) and a context of 3 tokens."""

    def __init__(self, table):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(table).log())
        self.config = GPT2Config(vocab_size=len(table), n_positions=3, bos_token_id=0, eos_token_id=0)

    def forward(self, input_ids, use_cache=False):
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.logits[input_ids])  # (B, T, V)


TABLE = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5]]


def test_hand_computed_numbers():
    # 0 -> 1 (1/4), 1 -> 1 (3/4), 1 -> 2 (1/8), 2 -> 2 (1/2), 2 -> 0 (1/4), 0 -> 0 (1/2)
    sums = batch_sums(Bigram(TABLE), [[0, 1, 1, 2, 2, 0]], [[1, 1, 2, 2, 0, 0]])
    sums.bytes = 12
    nats = math.log(4) + math.log(4 / 3) + math.log(8) + math.log(2) + math.log(4) + math.log(2)
    assert sums.tokens == 6
    assert sums.correct == 3  # 1 -> 1, 2 -> 2, 0 -> 0
    assert sums.loss == pytest.approx(nats / 6)
    assert sums.perplexity == pytest.approx((4 * 4 / 3 * 8 * 2 * 4 * 2) ** (1 / 6))
    assert sums.bits_per_byte == pytest.approx((2 + math.log2(4 / 3) + 3 + 1 + 2 + 1) / 12)
    assert sums.accuracy == pytest.approx(0.5)
    # of rows 0 and 2 one and a half bits, of row 1 a quarter of three bits and three quarters of log2(4 / 3)
    assert sums.entropy == pytest.approx((4 * 1.5 + 2 * (0.75 + 0.75 * math.log2(4 / 3))) / 6)


def test_batch_sums_leave_out_what_is_no_target():
    sums = batch_sums(Bigram(TABLE), np.array([[0, 1], [2, 0]]), np.array([[1, -100], [-100, -100]]))
    assert sums == MetricSums(pytest.approx(math.log(4)), 1, 0, 0, pytest.approx(1.5 * math.log(2)))
    nothing = batch_sums(Bigram(TABLE), [[0]], [[-100]])
    assert (nothing.tokens, nothing.nats) == (0, 0)
    assert math.isnan(nothing.loss) and math.isnan(nothing.accuracy) and math.isnan(nothing.bits_per_byte)


def test_sums_add_up_over_shards_and_processes(model):
    ids = np.random.default_rng(0).integers(4, 250, 4 * CONTEXT + 1)
    inputs, labels = ids[:-1].reshape(4, CONTEXT), ids[1:].reshape(4, CONTEXT)
    full = batch_sums(model, inputs, labels)
    parts = [batch_sums(model, inputs[rows], labels[rows]) for rows in (slice(0, 1), slice(1, 4))]
    together = MetricSums.from_list(torch.tensor([p.to_list() for p in parts], dtype=torch.float64).sum(0))
    assert together == parts[0] + parts[1]
    assert (together.tokens, together.correct) == (full.tokens, full.correct)
    assert together.nats == pytest.approx(full.nats, rel=1e-6)


def whole_text(model, ids, block_size=None, stride=None, batch_size=8):
    """Measure a text as one block; returns its nats, tokens and right predictions."""
    ids = np.asarray(ids)
    windows = block_size, stride, batch_size
    return block_sums(model, ids, ids, np.zeros(len(ids), dtype=np.int32), np.array([1]), windows)[0, :3]


def plain_definition(model, ids, block_size, stride):
    """Score one token at a time, in the first window that contains it."""
    nats, correct = 0.0, 0
    for target in range(1, len(ids)):
        window = max(0, -(-(target - block_size) // stride))
        context = ids[window * stride : target]
        assert 0 < len(context) <= block_size
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(context[None])).logits[0, -1].double()
        nats -= logits.log_softmax(0)[ids[target]].item()
        correct += int(logits.argmax() == ids[target])
    return nats, correct


@pytest.mark.parametrize("stride", [None, 1, 5, CONTEXT])
@pytest.mark.parametrize("length", [2, CONTEXT, CONTEXT + 1, CONTEXT + 2, 57])
def test_every_token_but_the_first_is_predicted_once_in_any_windows(model, length, stride):
    ids = np.random.default_rng(length).integers(4, 250, length)
    nats, correct = plain_definition(model, ids, CONTEXT, stride or CONTEXT)
    for batch_size in (1, 3):
        measured = whole_text(model, ids, stride=stride, batch_size=batch_size)
        assert measured.tolist() == [pytest.approx(nats, rel=1e-5), length - 1, correct]


@pytest.mark.parametrize("kind", ["bpe", "char", "byte"])
@pytest.mark.parametrize("text", ["the cat", "日本", "é", "🙂 unseen", " cat", "\n\n"])
def test_bytes_are_those_of_the_predicted_text(kind, text, model, tmp_path):
    tokenizer = train_tokenizer(["the cat sat on the mat\n\n"], kind, vocab_size=270)
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    ids, _ = metrics.encode_with_ends(tokenizer, text)
    if len(ids) < 2:
        with pytest.raises(UsageError, match="1 tokens"):
            evaluate_file(model, tokenizer, path)
    else:
        rest = sum(_bytes_of_token(tokenizer, id) for id in ids[1:])
        assert evaluate_file(model, tokenizer, path)["bytes"] == rest


def _bytes_of_token(tokenizer, id):
    token = tokenizer.convert_ids_to_tokens(int(id))
    if token.startswith("<0x"):
        return 1
    byte_level = "ByteLevel" in type(tokenizer.backend_tokenizer.decoder).__name__
    return len(token) if byte_level else len(token.encode())


def test_long_texts_are_encoded_in_pieces_without_a_difference(tokenizer):
    text = "the cat sat.\n\nthe dog ran\n on the mat, 日本語\nnaïve café\n" * 40
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert metrics.encode_with_ends(tokenizer, text, piece=50)[0].tolist() == ids
    assert metrics.encode_with_ends(tokenizer, "x" * 500, piece=50)[0].tolist() == tokenizer("x" * 500)["input_ids"]


def test_the_modules_give_hand_computed_numbers():
    nats = [math.log(2), 2 * math.log(4)]  # one token of probability 1/2, two of 1/4
    results = metrics.load_metric("perplexity").compute(predictions=nats, references=[1, 2])
    assert results["loss"] == pytest.approx(5 * math.log(2) / 3)
    assert results["perplexity"] == pytest.approx(2 ** (5 / 3))
    results = metrics.load_metric("bits_per_byte").compute(predictions=nats, references=[4, 6])
    assert results == {"bits_per_byte": pytest.approx(0.5)}
    accuracy = metrics.load_metric("token_accuracy")
    accuracy.add_batch(predictions=[[5, 6, 7], [1, 1, 1]], references=[[5, 9, -100], [1, 1, 2]])
    accuracy.add_batch(predictions=[[8]], references=[[3]])
    assert accuracy.compute() == {"accuracy": pytest.approx(3 / 6)}  # not the mean of 1/2, 2/3 and 0


def test_a_file_is_measured_as_it_is(model, tokenizer, tmp_path):
    text = "the dog<|endoftext|> sat on the café mat\r\n" * 12  # what somebody typed stays plain text, line ends stay
    (tmp_path / "text.txt").write_bytes(text.encode())
    ids = tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert 0 not in ids
    for stride in (None, 5):
        results = evaluate_file(model, tokenizer, tmp_path / "text.txt", stride=stride, batch_size=3)
        nats, tokens, correct = whole_text(model, ids, stride=stride)
        sums = MetricSums(nats, int(tokens), int(correct), len(text.encode()) - len(tokenizer.decode(ids[:1]).encode()))
        for name in ("loss", "perplexity", "bits_per_byte", "accuracy"):
            assert results[name] == pytest.approx(getattr(sums, name), rel=1e-6)
        assert (results["tokens"], results["bytes"]) == (sums.tokens, sums.bytes)
        assert (results["block_size"], results["stride"]) == (CONTEXT, stride or CONTEXT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        ("the cat".encode("utf-16"), "is UTF-16"),
        (b"caf\xe9", "is not valid UTF-8 .*byte 3"),
        (b"\x00\x01\x02", "is binary"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, words):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        metrics.read_text(path)


def test_impossible_windows_are_named(model):
    ids = list(range(4, 50))
    for options, words in [
        ({"block_size": CONTEXT + 1}, "--block_size is 17 .expected 1 to 16 tokens"),
        ({"block_size": 0}, "--block_size is 0"),
        ({"stride": CONTEXT + 1}, "--stride is 17 .expected 1 to 16"),
        ({"stride": 0}, "--stride is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ]:
        with pytest.raises(UsageError, match=words):
            whole_text(model, ids, **options)
    with pytest.raises(UsageError, match="has 1 tokens"):
        whole_text(model, [5])
    with pytest.raises(UsageError, match="no metric 'accuracy'"):
        metrics.load_metric("accuracy")


def test_a_hopeless_loss_has_infinite_perplexity_instead_of_an_overflow():
    assert MetricSums(nats=8000, tokens=10).perplexity == math.inf
