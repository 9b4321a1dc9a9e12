"""Test minimal pairs: scores against a slow computation, ties, paradigms, batches and invalid lines."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.errors import UsageError
from tinygpt_hf.evaluation.minimal_pairs import choice_outcomes, minimal_pairs, read_pairs, sentence_scores

WORDS = "<eos> <bos> the cat cats sleep sleeps a dog sees not".split()


def tokenizer(**special):
    core = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, **(special or {"eos_token": "<eos>"}))


def pair(good: str, bad: str, uid: str = "some") -> dict:
    return {"sentence_good": good, "sentence_bad": bad, "UID": uid}


PAIRS = [
    pair("the cat sleeps", "the cat sleep", "agreement"),
    pair("the cats sleep", "the cats sleeps", "agreement"),
    pair("the dog sees a cat", "the dog a cat sees", "order"),
    pair("a dog sees the cats", "a dog sees cats the", "order"),
    pair("the cat sees", "cat the sees", "order"),
    pair("the dog sleeps not", "the dog sleeps not not", "length"),
]

FREQUENCIES = [0.1 * k for k in range(len(WORDS))]


def tiny_gpt():
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(WORDS)}
    return TinyGPTForCausalLM(TinyGPTConfig(**shape, max_position_embeddings=8, initializer_range=0.5)).eval()


class FromTable:
    """A bigram model: the logits of the next token depend only on the current one."""

    def __init__(self, logits_after):
        self.table = torch.tensor([logits_after(k) for k in range(len(WORDS))], dtype=torch.float32)  # (V, V)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=len(WORDS)))

    def parameters(self):
        yield self.table

    def __call__(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.table[input_ids])  # (B, T, V)


def outcomes(model, tok, pairs, batch_size=64):
    return choice_outcomes(model, tok, [(one["sentence_good"], one["sentence_bad"]) for one in pairs], batch_size)


def test_scores_are_those_of_one_token_at_a_time():
    torch.manual_seed(0)
    model, tok = tiny_gpt(), tokenizer()
    sentences = [sentence for one in PAIRS for sentence in (one["sentence_good"], one["sentence_bad"])]
    scores = sentence_scores(model, tok, sentences)
    assert set(scores) == set(sentences)
    for sentence in sentences:
        ids, slow = [0], 0.0  # after eos: there is no bos
        for word in sentence.split():
            with torch.no_grad():
                chances = model(torch.tensor([ids])).logits[0, -1].double().softmax(0).tolist()
            ids.append(WORDS.index(word))
            slow += math.log(chances[ids[-1]])
        assert scores[sentence] == pytest.approx(slow, abs=1e-4)
    right = [scores[one["sentence_good"]] > scores[one["sentence_bad"]] for one in PAIRS]
    assert 0 < sum(right) < len(right)
    assert all(outcomes(model, tok, PAIRS, batch_size) == list(map(float, right)) for batch_size in (1, 5, 64))


def test_a_unigram_model_ties_on_word_order():
    model, tok = FromTable(lambda before: FREQUENCIES), tokenizer()
    assert outcomes(model, tok, PAIRS[2:5]) == [0.5, 0.5, 0.5]
    assert outcomes(model, tok, PAIRS[:2]) == [1.0, 0.0]  # sleeps is likelier than sleep, whoever sleeps
    assert outcomes(model, tok, PAIRS[5:]) == [1.0]  # a longer sentence has one probability more to pay


def test_the_accuracy_is_the_mean_over_paradigms_not_over_pairs():
    model = FromTable(lambda before: FREQUENCIES)
    measured = minimal_pairs(model, tokenizer(), PAIRS[:1] + PAIRS[2:5])
    assert {name: measured.pop(name) for name in ("low", "high")} == pytest.approx(
        {"low": 0.30, "high": 0.954}, abs=0.01
    )
    assert measured == {"accuracy": 0.75, "pairs": 4, "by_paradigm": {"agreement": 1.0, "order": 0.5}}
    assert math.isnan(minimal_pairs(model, tokenizer(), [])["accuracy"])


def test_a_sentence_begins_behind_bos_where_there_is_one():
    model = FromTable(lambda k: [5.0 * (k == 1 and word == "cats") for word in WORDS])
    begins = [pair("cats sleep", "cat sleep")]
    assert outcomes(model, tokenizer(bos_token="<bos>", eos_token="<eos>"), begins) == [1.0]
    assert outcomes(model, tokenizer(eos_token="<eos>"), begins) == [0.5]
    with pytest.raises(UsageError, match="no bos and no eos"):
        outcomes(model, tokenizer(unk_token="<eos>"), begins)


@pytest.mark.parametrize("length", [8, 9, 11, 12, 13, 30])
def test_of_a_sentence_longer_than_the_context_every_token_counts_once(length):
    torch.manual_seed(1)
    model, words = tiny_gpt(), (WORDS[2:] * 4)[:length]
    ids = [0, *map(WORDS.index, words)]
    slow = 0.0
    for k in range(1, len(ids)):
        end = k if k <= 8 else min(8 + -(-(k - 8) // 4) * 4, length)  # where the window ends that predicts it
        seen = ids[max(0, end - 8) : k]
        with torch.no_grad():
            slow += float(model(torch.tensor([seen])).logits[0, -1].log_softmax(-1)[ids[k]])
    scores = sentence_scores(model, tokenizer(), [" ".join(words)])
    assert scores[" ".join(words)] == pytest.approx(slow, abs=1e-4)


def test_a_file_in_blimps_format_is_read(tmp_path):
    more = {"field": "syntax", "simple_LM_method": True, "pair_id": 0}
    path = tmp_path / "agreement.jsonl"
    path.write_text("".join(json.dumps({**one, **more}) + "\n" for one in PAIRS) + "\n", encoding="utf-8-sig")
    assert read_pairs(path) == PAIRS


@pytest.mark.parametrize(
    "line,problem",
    [
        (b"{", "is no JSON"),
        (b'{"sentence_good": "a\xff"}', "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1]", "holds a list"),
        (b'{"sentence_good": "a", "UID": "x"}', "no text in sentence_bad"),
        (b'{"sentence_good": "a", "sentence_bad": 1, "UID": "x"}', "no text in sentence_bad"),
        (b'{"sentence_good": " ", "sentence_bad": "b", "UID": "x"}', "no text in sentence_good"),
        (b'{"sentence_good": "a", "sentence_bad": "b"}', "no text in UID"),
        (b'{"sentence_good": "\\ud800", "sentence_bad": "b", "UID": "x"}', "no text in sentence_good"),
    ],
)
def test_a_line_that_is_no_pair_is_refused_with_file_and_line(tmp_path, line, problem):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(json.dumps(PAIRS[0]).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(UsageError, match=problem) as refused:
        read_pairs(path)
    assert f"{path}, line 3 " in str(refused.value) and "\n" not in str(refused.value)
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match="holds no pairs"):
        read_pairs(path)
