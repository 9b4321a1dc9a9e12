"""The settings of the commands that use a finished model."""

from dataclasses import dataclass
from typing import Literal

from tinygpt_hf.settings.arguments import PathText, setting


@dataclass(kw_only=True)
class DeviceArguments:
    """Settings of the device, the base of all settings that load a model."""

    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "device to run on")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("auto", "auto: float32 on CPU, else as saved")


@dataclass(kw_only=True)
class MeasuringArguments(DeviceArguments):
    """Settings of measuring a text."""

    block_size: int | None = setting(None, "tokens per window; default each model's context, at most 2048")
    per_device_eval_batch_size: int = setting(8, "windows per batch (fewer with a large vocabulary)")
    output_file: PathText | None = setting(None, "also write the numbers to this JSON file")


@dataclass
class GenerateArguments(DeviceArguments):
    """Settings of `tinygpt generate`."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    prompt: str | None = setting(None, "text to continue", excludes=("prompt_file",))
    prompt_file: PathText | None = setting(
        None, 'read the prompt from this UTF-8 file, unchanged; .jsonl: one {"prompt": ...} per line'
    )
    max_new_tokens: int = setting(200, "stop after this many tokens")
    temperature: float = setting(0.8, "sampling temperature; 0 always takes the likeliest token")
    top_k: int = setting(50, "sample among the k likeliest tokens; 0: among all")
    top_p: float = setting(1.0, "sample among the likeliest tokens with this total probability; 1: among all")
    min_p: float = setting(0.0, "leave out tokens less likely than this share of the likeliest one; 0: none")
    repetition_penalty: float = setting(1.0, "above 1 makes tokens that have occurred less likely; 1: off")
    stop: list[str] = setting([], "stop before any of these texts appears")
    seed: int = setting(42, "random seed: the same seed gives the same text")
    num_return_sequences: int = setting(1, "number of samples, each with its own seed derived from --seed")
    stream: bool = setting(True, "print the text while it is generated; --no_stream: at the end")
    output_file: PathText | None = setting(
        None, "also write prompt and continuation to this file, as JSON lines for a .jsonl of prompts"
    )
    show_steps: bool = setting(False, "show for each token the likeliest choices, its surprisal and the entropy")
    explain: bool = setting(
        False, "color the text by surprisal, with the bits of each token from 1 bit on", excludes=("show_steps",)
    )
    show_candidates: int = setting(5, "number of tokens --show_steps shows at each step")


@dataclass
class InspectArguments(DeviceArguments):
    """Settings of `tinygpt inspect`."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    text: str | None = setting(None, "text to inspect", excludes=("file", "prompt"))
    file: PathText | None = setting(None, "inspect the text in this UTF-8 file", excludes=("prompt",))
    prompt: str | None = setting(None, "continue this prompt with the likeliest tokens, and inspect both")
    max_new_tokens: int = setting(60, "number of tokens to continue --prompt by")
    lens: bool = setting(False, "logit lens: the prediction of each layer, and the first layer from which it is right")
    attention: bool = setting(False, "attention of each head of each layer; the maps are in the HTML page")
    checkpoints: bool = setting(False, "inspect the text with every snapshot and checkpoint of the run folder")
    html: PathText | None = setting(None, "also write an interactive HTML page, one file that works offline")
    output_file: PathText | None = setting(None, "also write all numbers to this JSON file")


@dataclass
class ReportArguments:
    """Settings of `tinygpt report`."""

    runs: list[PathText] = setting([], "run folders; several are shown in one page", positional=True)
    output_file: PathText | None = setting(
        None, "HTML page to write; default report.html in the run folder, or for several runs in the current folder"
    )


@dataclass
class EvaluateArguments(MeasuringArguments):
    """Settings of `tinygpt evaluate`."""

    model: list[PathText] = setting([], "model folders or Hub ids; several make one table", positional=True)
    data: PathText | None = setting(None, "UTF-8 text file to measure on")
    tasks: list[str] = setting(
        [],
        "blimp, last_word, cloze; basics (or of them agreement, copying, brackets, arithmetic, recall); lm_eval:NAME",
    )
    tasks_dir: PathText | None = setting(
        None, "folder with the tasks' data: TASK.jsonl or TASK/*.jsonl; for lm_eval the YAML file of the task"
    )
    memorization: bool = setting(False, "also measure how much samples copy from the run's training rows")
    stride: int | None = setting(None, "tokens between windows; default the window; less gives more context")
    quantization: Literal["int8", "int4"] | None = setting(
        None, "also measure the model with quantized matrices (torchao)"
    )


@dataclass
class CompareArguments(MeasuringArguments):
    """Settings of `tinygpt compare`."""

    model: list[PathText] = setting([], "A and B: two model folders or Hub ids", positional=True)
    data: PathText | None = setting(
        None, "text or documents to measure on (.txt, .jsonl, .csv, .parquet, a folder), read as by `train`"
    )
    text_column: str | None = setting(None, "column with the text; default as in training")


@dataclass
class SelftestArguments:
    """Settings of `tinygpt selftest`."""

    output_file: PathText | None = setting(None, "also write the table to this JSON file")


@dataclass
class ChatArguments(DeviceArguments):
    """Settings of `tinygpt chat`: one --prompt, lines from standard input, or a conversation in the terminal."""

    model: PathText | None = setting(
        None, "model folder or Hub id; default the newest finished run in runs/", positional=True
    )
    prompt: str | None = setting(None, "answer this message and exit")
    system: str | None = setting(None, "system message at the start of the conversation")
    max_new_tokens: int = setting(256, "longest answer, in tokens")
    temperature: float = setting(0.7, "sampling temperature; 0 always takes the likeliest token")
    top_k: int = setting(50, "sample among the k likeliest tokens; 0: among all")
    top_p: float = setting(1.0, "sample among the likeliest tokens with this total probability; 1: among all")
    min_p: float = setting(0.05, "leave out tokens less likely than this share of the likeliest one; 0: none")
    repetition_penalty: float = setting(1.0, "above 1 makes tokens that have occurred less likely; 1: off")
    stop: list[str] = setting([], "end the answer before any of these texts appears")
    seed: int | None = setting(None, "random seed: the same seed and messages give the same answers; default: random")
    explain: bool = setting(False, "color answers by surprisal, with the bits of each token from 1 bit on")


@dataclass
class ExportArguments:
    """Settings of `tinygpt export`."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    to: Literal["qwen3", "llama", "gpt2", "onnx", "gguf"] | None = setting(
        None, "format; qwen3, llama and gpt2 are stock Transformers models"
    )
    output_dir: PathText | None = setting(None, "new folder to write; default MODEL/exports/<format>")


@dataclass
class ServeArguments(DeviceArguments):
    """Settings of `tinygpt serve`."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 admits other machines, without authentication")
    port: int = setting(8000, "port to listen on; 0: any free port")


@dataclass
class DemoArguments(DeviceArguments):
    """Settings of `tinygpt demo`."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 admits other machines, without authentication")
    port: int = setting(7860, "port to listen on; 0: any free port")
    seed: int | None = setting(None, "random seed: the same seed and messages give the same answers; default: random")
