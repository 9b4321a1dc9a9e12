"""Define the settings of the commands that use a finished model. Importing this costs nothing."""

from dataclasses import dataclass
from typing import Literal

from tinygpt_hf.settings.arguments import PathText, setting


@dataclass(kw_only=True)
class OnDevice:
    """Where a model runs; the base of all settings that load one."""

    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to run")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("auto", "auto: float32 on CPU, else as saved")


@dataclass(kw_only=True)
class Measuring(OnDevice):
    """How a text is measured, and where the numbers go."""

    block_size: int | None = setting(None, "tokens per window; default each model's context, at most 2048")
    per_device_eval_batch_size: int = setting(8, "windows per batch (fewer where the vocabulary is large)")
    output_file: PathText | None = setting(None, "also write the numbers to this JSON file")


@dataclass
class GenerateArguments(OnDevice):
    """Continue a prompt."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    prompt: str | None = setting(None, "text to continue", excludes=("prompt_file",))
    prompt_file: PathText | None = setting(
        None, 'read the prompt from this UTF-8 file, byte for byte; .jsonl: one {"prompt": ...} a line'
    )
    max_new_tokens: int = setting(200, "stop after this many tokens")
    temperature: float = setting(0.8, "below 1 sharpens the choice, above 1 flattens it; 0 takes the likeliest token")
    top_k: int = setting(50, "choose among the k likeliest tokens only; 0: among all")
    top_p: float = setting(1.0, "choose among the likeliest tokens that together hold this probability; 1: among all")
    min_p: float = setting(0.0, "leave out tokens less likely than this share of the likeliest one; 0: none")
    repetition_penalty: float = setting(1.0, "above 1 makes tokens that occurred already less likely; 1: off")
    stop: list[str] = setting([], "stop before any of these texts appears")
    seed: int = setting(42, "seed of the choices: the same seed gives the same text")
    num_return_sequences: int = setting(1, "number of samples, each with a seed of its own derived from --seed")
    stream: bool = setting(True, "show the text as it is made; --no_stream: at the end")
    output_file: PathText | None = setting(
        None, "also write prompt and continuation to this file; for a .jsonl of prompts as JSON lines"
    )
    show_steps: bool = setting(False, "show for each token the likeliest choices, its surprisal and the entropy")
    explain: bool = setting(
        False, "color the text by surprisal, with the bits of each token from 1 bit on", excludes=("show_steps",)
    )
    show_candidates: int = setting(5, "how many tokens --show_steps shows at each step")


@dataclass
class InspectArguments(OnDevice):
    """See how a model reads a text."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    text: str | None = setting(None, "the text to look at", excludes=("file", "prompt"))
    file: PathText | None = setting(None, "look at the text in this UTF-8 file", excludes=("prompt",))
    prompt: str | None = setting(None, "let the model go on from here, by its likeliest tokens, and look at both")
    max_new_tokens: int = setting(60, "how many tokens go on from --prompt")
    lens: bool = setting(False, "what each layer would have said, and from which one on it is right (logit lens)")
    attention: bool = setting(False, "where each head of each layer looks; the maps are in the page")
    checkpoints: bool = setting(
        False, "the same text over the run: with every snapshot and checkpoint of the run folder"
    )
    html: PathText | None = setting(None, "also write a page to explore, one file that works offline")
    output_file: PathText | None = setting(None, "also write all numbers to this JSON file")


@dataclass
class ReportArguments:
    """Write the report of a run, or of several side by side."""

    runs: list[PathText] = setting([], "run folders; several are overlaid", positional=True)
    output_file: PathText | None = setting(
        None, "page to write; default report.html in the run folder, for several runs in the current folder"
    )


@dataclass
class EvaluateArguments(Measuring):
    """Measure models on a text and on tasks."""

    model: list[PathText] = setting([], "model folders or Hub ids; several make one table", positional=True)
    data: PathText | None = setting(None, "UTF-8 text file to measure on")
    tasks: list[str] = setting(
        [],
        "blimp, last_word, cloze; basics (or of them agreement, copying, brackets, arithmetic, recall); lm_eval:NAME",
    )
    tasks_dir: PathText | None = setting(
        None, "folder with the tasks' data: TASK.jsonl or TASK/*.jsonl; of lm_eval the YAML of the task"
    )
    memorization: bool = setting(False, "also count what samples copy from the run's training rows")
    stride: int | None = setting(None, "tokens between windows; default the window; a smaller one gives more context")
    quantization: Literal["int8", "int4"] | None = setting(
        None, "also measure the model with its matrices as small integers (torchao), beside the full one"
    )


@dataclass
class CompareArguments(Measuring):
    """Is A better than B on a text?"""

    model: list[PathText] = setting([], "A and B: two model folders or Hub ids", positional=True)
    data: PathText | None = setting(
        None, "a text, or documents (.jsonl, .csv, .parquet, a folder), as `train` reads them"
    )
    text_column: str | None = setting(None, "column with the text; default as in training")


@dataclass
class SelftestArguments:
    """Does this machine compute right?"""

    output_file: PathText | None = setting(None, "also write the table to this JSON file")


@dataclass
class ChatArguments(OnDevice):
    """Talk to a model: one --prompt, lines from standard input, or a conversation in the terminal."""

    model: PathText | None = setting(
        None, "model folder or Hub id; default the newest finished run in runs/", positional=True
    )
    prompt: str | None = setting(None, "answer this one message and exit")
    system: str | None = setting(None, "system message that opens the conversation")
    max_new_tokens: int = setting(256, "longest answer in tokens")
    temperature: float = setting(0.7, "below 1 sharpens the choice, above 1 flattens it; 0 takes the likeliest token")
    top_k: int = setting(50, "choose among the k likeliest tokens only; 0: among all")
    top_p: float = setting(1.0, "choose among the likeliest tokens that together hold this probability; 1: among all")
    min_p: float = setting(0.05, "leave out tokens less likely than this share of the likeliest one; 0: none")
    repetition_penalty: float = setting(1.0, "above 1 makes tokens that occurred already less likely; 1: off")
    stop: list[str] = setting([], "end the answer before any of these texts appears")
    seed: int | None = setting(None, "the same seed and messages give the same answers; default: chance")
    explain: bool = setting(False, "color answers by surprisal, with the bits of each token from 1 bit on")


@dataclass
class ExportArguments:
    """Write a model for runtimes that do not need this package."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    to: Literal["qwen3", "llama", "gpt2", "onnx", "gguf"] | None = setting(
        None, "the format; the first three are stock models"
    )
    output_dir: PathText | None = setting(None, "new folder to write; default MODEL/exports/<format>")


@dataclass
class ServeArguments(OnDevice):
    """Answer clients of OpenAI's interface."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in, and nothing asks for a key")
    port: int = setting(8000, "port to listen on; 0 takes a free one")


@dataclass
class DemoArguments(OnDevice):
    """Talk to a model in the browser."""

    model: PathText | None = setting(None, "model folder or Hub id", positional=True)
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in, and nothing asks for a key")
    port: int = setting(7860, "port to listen on; 0 takes a free one")
    seed: int | None = setting(None, "the same seed and messages give the same answers; default: chance")
