"""Sample prompts are openings of validation documents and end with a word, for any script and tokenizer."""

import pytest

from tinygpt_hf.rows.store import Rows, RowWriter
from tinygpt_hf.settings.arguments import TrainingArguments
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer
from tinygpt_hf.training.measures import sample_prompts


@pytest.mark.parametrize(
    ("kind", "text", "prompt"),
    [
        ("byte", "Once a cat sat on a mat", "Once a cat"),
        ("byte", "白雪公主與七個小矮人", "白雪公主"),
        ("char", "むかしむかしあるところに", "むかしむかしあるところ"),
        ("char", "กาลครั้งหนึ่งนานมาแล้ว", "กาลครั้งหนึ่"),
        ("char", "กาลกาลกาลกาเแล้ว", "กาลกาลกาลกา"),
        ("char", "كان ياما مكان في", "كان ياما"),
        ("char", "एक समय की बात है", "एक समय की"),
        ("char", "옛날 옛적 호랑이가 살던", "옛날 옛적 호랑이가"),
        ("char", "He said don't go", "He said"),
        ("byte", "Über alle Gipfel", "Über alle"),
        ("char", "Once a cat sat on a mat", "Once a cat"),
        ("byte", "Donaudampfschifffahrt", "Donaudampfsc"),  # a single long word is cut
        ("byte", "Hi", "H"),  # at least one token must remain
    ],
)
def test_a_prompt_ends_at_a_word_end(tmp_path, kind, text, prompt):
    tokenizer = train_tokenizer([text] * 2, kind, vocab_size=300, max_length=64)
    ids = tokenizer(text)["input_ids"]
    with RowWriter(tmp_path / "rows", vocab_size=len(tokenizer)) as writer:
        writer.add(ids if text != "Hi" else ids[:2])
    found = sample_prompts(tokenizer, Rows(tmp_path / "rows"), TrainingArguments())
    assert [tokenizer.decode(ids) for ids in found] == [prompt]


def test_prompts_of_a_mix_of_conversations_and_texts(tmp_path):
    text = "Once a cat sat on a mat"
    tokenizer = train_tokenizer([text] * 2, "byte", vocab_size=300, max_length=64)
    ids = tokenizer(text)["input_ids"]
    with RowWriter(tmp_path / "rows", vocab_size=len(tokenizer)) as writer:
        writer.add(ids, [k > 14 for k in range(len(ids))])
        writer.add(ids)
    found = sample_prompts(tokenizer, Rows(tmp_path / "rows"), TrainingArguments())
    assert [tokenizer.decode(ids) for ids in found] == ["Once a cat sat ", "Once a cat"]
