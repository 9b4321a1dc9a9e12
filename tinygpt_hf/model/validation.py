"""A model folder looked at as bytes, before anything in it is built, allocated or run.

    check_folder(Path("runs/mine"))        # returns, or raises a UsageError of one line; writes nothing
    checked_folder("someone/model")        # the same for the Hub's copy on this machine, fetched when it is not there

A folder may come from anywhere. Weights are read from safetensors only: other formats can hold code, and safetensors
refuses a file whose header does not account for every byte of it. The configuration must be plain JSON that promises no
more weights than there are: a million layers cannot be loaded, and are not built to find that out. Links are followed, as
the Hub's cache is made of them, but files of the folder may only name files beside them.
"""

import json
import math
import os
from pathlib import Path

from tinygpt_hf.errors import UsageError
from tinygpt_hf.reading.decoding import machine_memory

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NO_WEIGHTS_HERE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".onnx", ".gguf")
LARGEST = {"config.json": 2**20, "generation_config.json": 2**20}  # bytes of the files the library reads
LARGEST |= dict.fromkeys((INDEX, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"), 2**22)
LARGEST |= dict.fromkeys(("chat_template.jinja", "chat_template.json", "processor_config.json"), 2**20)
LARGEST |= dict.fromkeys(("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"), 2**24)
LARGEST |= {"tokenizer.json": 2**26}  # the largest in use has 35 MB
TOKENIZER_BYTES = 2**20, 512  # at most so many for a tokenizer.json and so many more for each token
NOT_READ_HERE = ("tokenizer.json", "vocab.json")  # by the tokenizers library, which bounds depth and refuses damage
# sizes in a config.json, by all the names they have
SIZES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "vocab": ("vocab_size",),
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "key heads": ("num_key_value_heads",),
    "head": ("head_dim",),
    "inner": ("intermediate_size", "n_inner", "ffn_dim", "d_ff"),
    "positions": ("max_position_embeddings", "n_positions", "n_ctx"),
    "labels": ("num_labels",),
}
MOST = 2**31
MOST_LABELS = 10_000
KNOWN = ("tinygpt", "llama", "qwen3", "gpt2")  # architectures whose weights are counted by arithmetic


def checked_folder(name: str, only_local: bool = False) -> str:
    """The folder `name`, or the one the model of that Hub id lies in: checked, and of the Hub's files only those read here."""
    if Path(name).is_dir():
        folder = name
    else:
        from huggingface_hub import snapshot_download

        wanted = [*LARGEST, WEIGHTS, "model-*.safetensors"]
        folder = snapshot_download(name, local_files_only=only_local, allow_patterns=wanted)
    check_folder(Path(folder))
    return folder


def check_folder(folder: Path) -> None:
    """Everything that can be known of a model folder from its bytes; a `UsageError` names the first thing wrong."""
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        raise UsageError(
            f"{folder} holds an adapter (adapter_config.json)",
            "a whole model",
            "merge it into its base model with PEFT (merge_and_unload) and save that",
        )
    files = {name: folder / name for name in LARGEST if (folder / name).exists()}
    for path in files.values():
        if not path.is_file():  # opening a pipe would wait for ever
            raise _damaged(path, "is no file")
        _check_size(path)
    facts = {name: read_strictly(path) for name, path in files.items() if _is_read_here(name)}
    if "config.json" not in facts:
        raise _damaged(folder, "holds no config.json", "name the folder of a model")
    config = facts["config.json"]
    _check_config(folder / "config.json", config)
    _check_promise(folder, config, weights_in(folder))
    most = TOKENIZER_BYTES[0] + TOKENIZER_BYTES[1] * (_sizes(config)["vocab"] or 2**17)
    if "tokenizer.json" in files:
        _check_size(files["tokenizer.json"], most)


def _is_read_here(name: str) -> bool:
    return name.endswith(".json") and name not in NOT_READ_HERE


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder."""
    return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("model-*.safetensors"))


def weights_in(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Name -> (dtype, shape) of every tensor of the folder, from the headers of its files."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():  # the library, too, prefers it to shards
        return check_header(folder / WEIGHTS)
    if not index.is_file():
        others = [path.name for path in sorted(folder.iterdir()) if path.name.endswith(NO_WEIGHTS_HERE)]
        if others:
            raise UsageError(
                f"the weights of {folder} are in {others[0]}, which is not read: such files can run code",
                f"{WEIGHTS}",
                "get the model in safetensors, or convert it on a machine that trusts it (save_pretrained)",
            )
        raise UsageError(f"{folder} holds no weights", f"{WEIGHTS}", "get the folder again")
    table = read_strictly(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise _damaged(index, "has no weight_map of tensor and file names")
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name in sorted(set(table.values())):
        if name != os.path.basename(name) or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise _damaged(index, f"names {name[:80]!r}, which is no safetensors file beside it")
        if not (folder / name).is_file():
            raise _damaged(index, f"names {name}, which is not there")
        found = check_header(folder / name)
        promised = {tensor for tensor, file in table.items() if file == name}
        if promised - set(found):
            raise _damaged(folder / name, f"lacks {min(promised - set(found))[:80]}, which {INDEX} says it holds")
        tensors |= {tensor: found[tensor] for tensor in promised}
    return tensors


def check_header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Read name -> (dtype, shape) of the tensors of one file; safetensors itself checks that its header accounts for every byte."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_slice(name) for name in file.keys()}
            return {name: (tensor.get_dtype(), tensor.get_shape()) for name, tensor in tensors.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, f"is damaged ({str(error)[:160]})") from error


def read_strictly(path: Path) -> dict:
    """The JSON object in a file of the folder: of bounded size and depth, no name twice, UTF-8."""
    _check_size(path)
    return _strict_json(path, path.read_bytes())


def _check_size(path: Path, most: int | None = None) -> None:
    size, most = path.stat().st_size, most or LARGEST[path.name]
    if size > most:
        raise _damaged(path, f"has {size} bytes, more than the {most} it can need")


def _strict_json(path: Path, data: bytes) -> dict:
    def unique(pairs: list) -> dict:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands there twice")
        return found

    def whole(word: str) -> int:
        if word == "-0":
            raise ValueError("-0 is a whole number to some readers and a fraction to others")
        return int(word)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_int=whole)
    except RecursionError:
        raise _damaged(path, "is nested too deeply") from None
    except ValueError as error:
        raise _damaged(path, f"is damaged ({str(error)[:120]})") from None
    if not isinstance(value, dict):
        raise _damaged(path, "holds no JSON object")
    return value


def _check_config(path: Path, config: dict) -> None:
    """Sizes are whole numbers in bounds, and nothing in the configuration fetches code or other weights."""
    if not isinstance(config.get("model_type"), str):
        raise _damaged(path, "has no model_type", "name the folder of a Transformers model")
    if "transformers_weights" in config:
        raise _damaged(path, "names weights of its own (transformers_weights)", "remove that line")
    for part in [config, *(value for value in config.values() if isinstance(value, dict))]:
        for name, value in part.items():
            if "implementation" in name and "/" in json.dumps(value):
                raise _damaged(path, f"asks for code from elsewhere ({name})", "remove that line")
        for kind, names in SIZES.items():
            least, most = 0 if kind in ("layers", "labels") else 1, MOST_LABELS if kind == "labels" else MOST
            for name in names:
                if not all(type(value) is int and least <= value <= most for value in _each(part.get(name))):
                    shown = json.dumps(part[name])[:40]
                    raise _damaged(path, f"says {name} is {shown}, no whole number from {least} to {most}")


def _each(value) -> list:
    """A size, or sizes given layer by layer, as a list; none where it is left out."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _check_promise(folder: Path, config: dict, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """Refuse a configuration that asks for more than the weights hold, and matrices that are no floating-point numbers."""
    there = sum(math.prod(shape) for _, shape in tensors.values())
    widest = max((max(shape, default=1) for _, shape in tensors.values()), default=0)
    size = sum(path.stat().st_size for path in weight_files(folder))
    if "quantization_config" in config:  # several small numbers share one element of these tensors
        there, widest = 32 * there, 32 * widest
    else:
        for name, (dtype, shape) in tensors.items():
            if len(shape) == 2 and name.endswith(".weight") and "F" not in dtype:
                raise _damaged(folder, f"has {name[:80]} as {dtype}, which is no floating-point type")
    config = _filled(folder / "config.json", config)
    sizes, hint = _sizes(config), "get the folder again: config.json and weights belong together"
    if sizes["layers"] > len(tensors):
        seen = f"config.json of {folder} promises {sizes['layers']} layers"
        raise UsageError(seen, f"at most as many as the {len(tensors)} tensors beside it", hint)
    across = ("vocab", "width", "inner", "heads", "key heads", "head") + (("positions",) if _learned(config) else ())
    largest = max(across, key=sizes.get)
    if sizes[largest] > widest:
        seen = f"config.json of {folder} promises {SIZES[largest][0]} {sizes[largest]}"
        raise UsageError(seen, f"at most {widest}, the widest tensor beside it", hint)
    promised = matrix_elements(config) if config["model_type"] in KNOWN else _elements_of_another(folder)
    if promised > 2 * there:  # where a few are missing, loading names them
        seen = f"config.json of {folder} promises {promised} weights or more"
        raise UsageError(seen, f"about the {there} beside it", hint)
    memory = machine_memory()
    if size > memory:
        wanted = f"at most {memory / 1e9:.1f} GB, this machine's memory"
        hint = "use a larger machine or a smaller model"
        raise UsageError(f"the weights of {folder} are {size / 1e9:.1f} GB", wanted, hint)


def _filled(path: Path, config: dict) -> dict:
    """The configuration with what its class fills in, where it is an architecture of which the weights are counted."""
    if config["model_type"] not in KNOWN:
        return config
    from transformers import CONFIG_MAPPING

    from tinygpt_hf.model.configuration_tinygpt import TinyGPTConfig

    config_class = TinyGPTConfig if config["model_type"] == "tinygpt" else CONFIG_MAPPING[config["model_type"]]
    try:
        return config_class.from_dict(config).to_dict()
    except Exception as error:  # strict dataclasses wrap in types of their own
        reason = " ".join(str(error.__cause__ or error).split())[:160]
        raise _damaged(path, f"describes no possible model ({reason})") from error


def _sizes(config: dict) -> dict[str, int]:
    """The sizes a configuration gives, 0 where it gives none; the largest where it gives two."""
    text = config.get("text_config")
    config = config | (text if isinstance(text, dict) else {})
    return {kind: max([0, *(n for name in names for n in _each(config.get(name)))]) for kind, names in SIZES.items()}


def matrix_elements(config: dict) -> int:
    """How many numbers the matrices of a TinyGPT, Llama, Qwen3 or GPT-2 configuration hold, a tied head counted once."""
    size = _sizes(config)
    vocab, width, layers, heads = (size[kind] for kind in ("vocab", "width", "layers", "heads"))
    head = size["head"] or width // max(heads, 1)
    queries, keys = heads * head, (size["key heads"] or heads) * head
    plain = config["model_type"] == "gpt2" or config.get("mlp_type") == "plain"
    inner = size["inner"] or 4 * width
    layer = width * (2 * queries + 2 * keys + (2 if plain else 3) * inner)
    heads_and_ends = vocab * width * (1 if config.get("tie_word_embeddings", True) else 2)
    return heads_and_ends + layers * layer + (size["positions"] * width if _learned(config) else 0)


def _elements_of_another(folder: Path) -> int:
    """How many numbers the model of a configuration holds, from the model itself without its memory; 0 where there is none."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            net = AutoModelForCausalLM.from_config(config)
    except Exception:  # loading says why it cannot be built
        return 0
    return sum(parameter.numel() for parameter in net.parameters())


def _learned(config: dict) -> bool:
    return config["model_type"] == "gpt2" or config.get("position_embedding_type") == "learned"


def _damaged(path: Path, what: str, action: str = "get the folder again") -> UsageError:
    return UsageError(f"{path} {what}", "a complete model in safetensors", action)
