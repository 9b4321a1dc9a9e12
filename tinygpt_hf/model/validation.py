"""Validate an untrusted model folder before anything in it is built, allocated or run.

    check_folder(Path("runs/mine"))        # raises a UsageError if it is invalid
    checked_folder("someone/model")        # the same for a model on the Hub, which is downloaded if needed

Weights are read only from safetensors: other formats can contain code, and safetensors checks that its header accounts for
every byte. The configuration must be plain JSON and must not describe more weights than the files hold. The model is built on
torch's meta device to count its parameters. Symbolic links are followed, since the Hub's cache consists of them, but an
index may only name files in its own folder.
"""

import json
import math
import os
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.json_list import one_of_each

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NO_WEIGHTS_HERE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".onnx", ".gguf")
LARGEST = {"config.json": 2**20, "generation_config.json": 2**20}  # limits in bytes for files that Transformers reads
LARGEST |= dict.fromkeys((INDEX, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"), 2**22)
LARGEST |= dict.fromkeys(("chat_template.jinja", "chat_template.json", "processor_config.json"), 2**20)
LARGEST |= dict.fromkeys(("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"), 2**24)
LARGEST |= {"tokenizer.json": 2**26}  # the largest in use have 35 MB
TOKENIZER_BYTES = 2**20, 512  # limit for tokenizer.json: a constant, plus bytes per token
NOT_READ_HERE = ("tokenizer.json", "vocab.json")  # read by the tokenizers library, which refuses deep or damaged JSON
# all names for the number of layers; Transformers builds an object for each layer, so the number is limited first
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
MOST_LABELS = 10_000
HINT = "get the folder again: config.json and weights belong together"


def checked_folder(name: str, only_local: bool = False) -> str:
    """Check a folder, or a Hub model of which only the needed files are downloaded, and return the folder's path."""
    folder = name
    if not Path(name).is_dir():
        from huggingface_hub import snapshot_download

        patterns = [*LARGEST, WEIGHTS, "model-*.safetensors"]
        folder = snapshot_download(name, local_files_only=only_local, allow_patterns=patterns)
    check_folder(Path(folder))
    return folder


def check_folder(folder: Path) -> None:
    """Validate a model folder; raise a `UsageError` with the first problem."""
    if (folder / "adapter_config.json").exists():
        raise UsageError(
            f"{folder} holds an adapter (adapter_config.json)",
            "a full model",
            "merge it into its base model with PEFT (merge_and_unload) and save that",
        )
    files = {name: folder / name for name in LARGEST if (folder / name).exists()}
    for path in files.values():
        if not path.is_file():  # opening a pipe would wait forever
            raise _damaged(path, "is not a file")
        _check_size(path)
    values = {
        name: read_json(path) for name, path in files.items() if name.endswith(".json") and name not in NOT_READ_HERE
    }
    if "config.json" not in values:
        raise _damaged(folder, "holds no config.json", "name the folder of a model")
    tensors = weights_in(folder)
    _check_config(folder / "config.json", values["config.json"], len(tensors))
    vocabulary = _check_weights(folder, values["config.json"], tensors)
    if "tokenizer.json" in files:
        _check_size(files["tokenizer.json"], TOKENIZER_BYTES[0] + TOKENIZER_BYTES[1] * vocabulary)


def weights_in(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Read (dtype, shape) of every tensor by name, from the headers of the weight files."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():  # preferred to shards, as in Transformers
        return _read_header(folder / WEIGHTS)
    if not index.is_file():
        others = [path.name for path in sorted(folder.iterdir()) if path.name.endswith(NO_WEIGHTS_HERE)]
        if others:
            raise UsageError(
                f"the weights of {folder} are in {others[0]}, which is not read: such files can run code",
                WEIGHTS,
                "get the model in safetensors, or convert it on a machine that trusts it (save_pretrained)",
            )
        raise UsageError(f"{folder} holds no weights", WEIGHTS, "get the folder again")
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise _damaged(index, "has no weight_map of tensor and file names")
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name in sorted(set(table.values())):
        if name != os.path.basename(name) or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise _damaged(index, f"names {name[:80]!r}, which is no safetensors file in the folder")
        if not (folder / name).is_file():
            raise _damaged(index, f"names {name}, which is missing")
        tensors |= _read_header(folder / name)
    if missing := sorted(set(table) - set(tensors)):
        raise _damaged(folder, f"lacks {missing[0][:80]}, which {INDEX} lists")
    return {name: tensors[name] for name in table}


def _read_header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Read (dtype, shape) of every tensor in one file by name; safetensors checks that its header covers every byte."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_slice(name) for name in file.keys()}
            return {name: (tensor.get_dtype(), tensor.get_shape()) for name, tensor in tensors.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, f"is damaged ({str(error)[:160]})") from error


def read_json(path: Path) -> dict:
    """Read a JSON object in UTF-8; raise a `UsageError` if it is too large, too deep, or repeats a name."""
    _check_size(path)
    try:
        value = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=one_of_each)
    except RecursionError:
        raise _damaged(path, "is nested too deeply") from None
    except ValueError as error:
        raise _damaged(path, f"is damaged ({str(error)[:120]})") from None
    if not isinstance(value, dict):
        raise _damaged(path, "holds no JSON object")
    return value


def _check_size(path: Path, most: int | None = None) -> None:
    size, most = path.stat().st_size, most or LARGEST[path.name]
    if size > most:
        raise _damaged(path, f"has {size} bytes, more than the limit of {most}")


def _check_config(path: Path, config: dict, num_tensors: int) -> None:
    """Raise a `UsageError` for a configuration that refers to external code or weights, or has too many layers or labels."""
    if not isinstance(config.get("model_type"), str):
        raise _damaged(path, "has no model_type", "name the folder of a Transformers model")
    if "transformers_weights" in config:
        raise _damaged(path, "names other weights (transformers_weights)", "remove that line")
    bounds = dict.fromkeys(LAYERS, num_tensors) | {"num_labels": MOST_LABELS}
    for part in [config, *(value for value in config.values() if isinstance(value, dict))]:
        for name, value in part.items():
            if "implementation" in name and "/" in json.dumps(value):
                raise _damaged(path, f"asks for external code ({name})", "remove that line")
            if name in bounds and value is not None and not (type(value) is int and 0 <= value <= bounds[name]):
                expected = f"a whole number from 0 to {bounds[name]}" + (", the number of tensors" * (name in LAYERS))
                raise UsageError(f"{path} says {name} is {json.dumps(value)[:40]}", expected, HINT)


def _check_weights(folder: Path, config: dict, tensors: dict[str, tuple[str, list[int]]]) -> int:
    """Check that the configuration describes about as many weights as the files hold, in a floating-point type.

    Returns the size of the vocabulary.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    if config["model_type"] not in CONFIG_MAPPING:
        problem = f"{folder} is a {config['model_type'][:80]!r}, which needs code of its own, which is not run"
        raise UsageError(problem, "an architecture that Transformers has", "name another model")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]].from_dict(config))
    except Exception as error:  # the strict dataclass wraps errors in its own types
        reason = " ".join(str(error.__cause__ or error).split())[:160]
        raise _damaged(folder / "config.json", f"describes no possible model ({reason})") from error
    described = sum(parameter.numel() for parameter in model.parameters())
    stored = sum(math.prod(shape) for _, shape in tensors.values())
    if "quantization_config" in config:  # an element of these tensors holds several quantized weights
        stored *= 32
    else:
        for name, (dtype, shape) in tensors.items():
            if len(shape) == 2 and name.endswith(".weight") and "F" not in dtype:
                raise _damaged(folder, f"has {name[:80]} as {dtype}, which is not a floating-point type")
    if described > 2 * stored:  # if only a few are missing, loading names them
        problem = f"config.json of {folder} describes {described} weights"
        raise UsageError(problem, f"about {stored}, as in the weight files", HINT)
    return getattr(model.config.get_text_config(), "vocab_size", 2**17)


def _damaged(path: Path, what: str, action: str = "get the folder again") -> UsageError:
    return UsageError(f"{path} {what}", "a complete model in safetensors", action)
