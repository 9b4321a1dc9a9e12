"""Provide small trained models with different tokenizers, and unseen text."""

import pytest
import torch

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.tokenizing.tokenizer import train_tokenizer
from tinygpt_hf.toyland import corpus as toyland


def stories(seed: int, size: int) -> list[str]:
    return [document["text"] for document in toyland.documents(seed, 4 * size) if "text" in document][:size]


def make_model(folder, kind: str, steps: int):
    """Train and save a model with 2 layers and width 32 for `steps` batches."""
    texts = stories(1, 150)
    tokenizer = train_tokenizer(texts, kind, vocab_size=400)
    ids = torch.tensor(tokenizer("\n".join(texts))["input_ids"])
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    model = TinyGPTForCausalLM(TinyGPTConfig(vocab_size=len(tokenizer), **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        starts = torch.randint(0, len(ids) - 64, (8,))
        batch = torch.stack([ids[start : start + 64] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> dict[str, str]:
    """Return model folders by name; the number in a name is the number of steps."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"bpe-60": ("bpe", 60), "bpe-5": ("bpe", 5), "char-30": ("char", 30)}
    return {name: make_model(folder / name, *what) for name, what in kinds.items()}


@pytest.fixture(scope="session")
def unseen(tmp_path_factory) -> str:
    """Write a file of unseen stories with non-ASCII letters; return its path."""
    path = tmp_path_factory.mktemp("text") / "unseen.txt"
    path.write_text("\n".join(["Straße, 日本 🙂", *stories(2, 30)]), encoding="utf-8")
    return str(path)
