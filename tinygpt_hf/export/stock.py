"""Write TinyGPT as a stock Qwen3, Llama or GPT-2 folder: an architecture every runtime knows, with none of our code beside it."""

from pathlib import Path

from tinygpt_hf.model.conversion import STOCK_CLASSES, equal_architecture, to_stock


def check(model, tokenizer) -> str:
    """Name the class that computes the same; a configuration is never equal to two of them."""
    return STOCK_CLASSES[equal_architecture(model.config)]


def write(model, tokenizer, folder: Path) -> list[str]:
    """Write weights, configuration, generation settings, tokenizer and chat template, as `from_pretrained` reads them."""
    to_stock(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return []
