"""tinygpt_hf: train a small GPT from your own text and use it anywhere Transformers runs.

Importing this package loads neither torch nor transformers. Each public name is imported on first use. TinyGPT is registered
with the Auto classes of transformers as soon as these are loaded, before or after this package.
"""

from importlib import import_module

from tinygpt_hf._moved import keep_old_names
from tinygpt_hf._register import register_auto_classes

__version__ = "0.1.0"

_CONFIGURATION = "tinygpt_hf.model.configuration_tinygpt"
_MODELING = "tinygpt_hf.model.modeling_tinygpt"
_RECIPE = "tinygpt_hf.training.recipe"
_ARGUMENTS = "tinygpt_hf.settings.arguments"

_PUBLIC_NAMES = {  # name -> module, or module:name if the name differs there
    "TinyGPTConfig": _CONFIGURATION,
    "TinyGPTPreTrainedModel": _MODELING,
    "TinyGPTModel": _MODELING,
    "TinyGPTForCausalLM": _MODELING,
    "TinyGPTForSequenceClassification": _MODELING,
    "TinyGPTForTokenClassification": _MODELING,
    "TinyGPTForQuestionAnswering": _MODELING,
    "train": _RECIPE,
    "plan": "tinygpt_hf.training.forecast",
    "evaluate": "tinygpt_hf.evaluation.evaluate",
    "load": "tinygpt_hf.model.loading:load_model",
    **dict.fromkeys(("ModelArguments", "DataArguments", "TokenizerArguments", "TrainingArguments"), _ARGUMENTS),
}

__all__ = ["__version__", *_PUBLIC_NAMES]


def __getattr__(name: str):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, there = _PUBLIC_NAMES[name].partition(":")
    value = getattr(import_module(module), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC_NAMES})


keep_old_names()
register_auto_classes()
