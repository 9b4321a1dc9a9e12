"""What a survey says of a text, beside what a whole look at it says."""

import json
from dataclasses import replace

import numpy as np
import pytest
from accelerate import Accelerator

from tinygpt_hf.planning.text import LEAST_XZ, survey
from tinygpt_hf.reading.corpus import Corpus
from tinygpt_hf.settings.arguments import DataArguments, TokenizerArguments
from tinygpt_hf.tokenizing.tokenizer import bytes_per_token, train_tokenizer
from tinygpt_hf.toyland.corpus import documents
from tinygpt_hf.training.probe import early_losses


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [d["text"] for d in documents(7, 1500) if "text" in d]


@pytest.fixture(scope="module")
def corpus(stories, tmp_path_factory) -> Corpus:
    path = tmp_path_factory.mktemp("text") / "t.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in stories))
    return Corpus(DataArguments(train_file=[str(path)], validation_split_percentage=10), 1)


def test_sizes_and_tokens(corpus, stories):
    text, excerpt = survey(corpus, TokenizerArguments(), 10_000_000)
    whole = sum(len(story.encode()) for story in stories)
    assert text.num_bytes + text.held_out == whole and 0.05 < text.held_out / whole < 0.15
    for size in (512, 1024):  # cut from the largest: the same merges as a tokenizer of that size has
        alone = train_tokenizer(stories, "bpe", size)
        assert text.bytes_per_token[size] == pytest.approx(bytes_per_token(alone, stories[:300]), rel=0.03)
    assert sorted(text.bytes_per_token.values()) == [
        text.bytes_per_token[size] for size in sorted(text.bytes_per_token)
    ]
    assert text.tokens(512) == round(text.num_bytes / text.bytes_per_token[512])
    assert 0 < text.encoding < 1e-3
    assert len(excerpt.learned) == pytest.approx(text.num_bytes / text.bytes_per_token[1024], rel=0.05)
    assert excerpt.bytes_per_token == pytest.approx(text.bytes_per_token[1024], rel=0.05) and 0.5 < excerpt.xz < 1.6


def test_a_sample_says_about_the_same_as_all(corpus):
    whole, part = (survey(corpus, TokenizerArguments(), size)[0] for size in (10_000_000, 100_000))
    assert part.num_bytes == pytest.approx(whole.num_bytes, rel=0.3)
    assert part.bytes_per_token[512] == pytest.approx(whole.bytes_per_token[512], rel=0.05)


def test_what_is_there_twice_is_seen(tmp_path, stories):
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in stories[:200] * 2))
    text, _ = survey(Corpus(DataArguments(train_file=[str(path)]), 1), TokenizerArguments(), 10_000_000)
    assert text.repeated == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind,vocabulary", [("byte", 260), ("char", None)])
def test_other_tokenizers_have_one_size(corpus, kind, vocabulary):
    text, _ = survey(corpus, TokenizerArguments(tokenizer_type=kind), 1_000_000)
    ((size, per_token),) = text.bytes_per_token.items()
    assert vocabulary in (None, size) and per_token == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "words", ["我们去公园。今天天气很好，他们笑了。" * 400, "Η μέρα ήταν ωραία. " * 400, "x = 1\n" * 2000]
)
def test_other_scripts_and_code(tmp_path, words):
    (tmp_path / "t.txt").write_text(words)
    text, excerpt = survey(
        Corpus(DataArguments(train_file=[str(tmp_path / "t.txt")]), 1), TokenizerArguments(), 1_000_000
    )
    assert text.num_bytes + text.held_out == len(words.encode()) and excerpt.xz == LEAST_XZ  # all of it is repeated


def test_a_small_model_tells_an_easy_text_from_a_hard_one(corpus):
    _, stories = survey(corpus, TokenizerArguments(), 300_000)
    letters = np.random.default_rng(1).integers(0, stories.vocab_size, len(stories.learned) + len(stories.tested))
    noise = replace(stories, learned=letters[: len(stories.learned)], tested=letters[len(stories.learned) :])
    accelerator = Accelerator(cpu=True)
    (easy,), (hard,) = (early_losses(accelerator, excerpt, seconds=0) for excerpt in (stories, noise))
    at_random = np.log2(stories.vocab_size) / stories.bytes_per_token
    assert easy < 0.75 * at_random and hard == pytest.approx(at_random, rel=0.05)
    assert early_losses(accelerator, replace(stories, tested=letters[:3]), seconds=0) == ()
