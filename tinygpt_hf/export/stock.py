"""Write a TinyGPT model as an equal Qwen3, Llama or GPT-2 model of Transformers, which needs no custom code."""

from pathlib import Path

from tinygpt_hf.model.conversion import STOCK_CLASSES, equal_architecture, to_stock


def check(model, tokenizer) -> str:
    """Return the name of the equal stock class; raise a `UsageError` if there is none."""
    return STOCK_CLASSES[equal_architecture(model.config)]


def write(model, tokenizer, folder: Path) -> list[str]:
    """Write weights, configuration, generation settings and tokenizer for `from_pretrained`; there are no caveats."""
    to_stock(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return []
