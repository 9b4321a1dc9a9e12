"""Run `tinygpt generate`: continue prompts from the command line or a file, and show or save the samples.

generate(GenerateArguments("runs/my", prompt="Once upon a time"), write)             # streams to `write`
generate(GenerateArguments("runs/my", prompt_file="prompts.jsonl", output_file="answers.jsonl"), write)
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.inference.engine import open_engine
from tinygpt_hf.inference.generation import (
    FINISH,
    Step,
    check_prompt,
    context_length,
    encode_prompt,
    generate_rows,
    read_sampling,
    room_for_answer,
    step_table,
)
from tinygpt_hf.inference.terminal import NOTE, Explainer, safe_text
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.checks import check_settings
from tinygpt_hf.settings.inference import GenerateArguments

SAVE_EVERY = 256  # samples that are sorted into batches, and saved, together


def generate(
    arguments: GenerateArguments, write: Callable[[str], None], to_terminal: bool = True, color: bool = False
) -> list[str]:
    """Continue the prompts, passing the output to `write`; return the samples, each with its prompt.

    With `to_terminal`, control characters are replaced in what is written, but never in the output file. `color` adds
    color to `--explain`.
    """
    check_settings(arguments)
    sampling, prompts = read_sampling(arguments), _read_prompts(arguments)
    for name in ("num_return_sequences", "show_candidates"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} is {getattr(arguments, name)}", "at least 1", f"leave --{name} out")
    if arguments.output_file:
        arguments = replace(arguments, output_file=str(check_output(Path(arguments.output_file))))
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    ids = [_encode(model, tokenizer, prompt, k if _is_list(arguments) else 0) for k, prompt in enumerate(prompts, 1)]

    prompt_indices = [k for k in range(len(prompts)) for _ in range(arguments.num_return_sequences)]
    samples = Samples(arguments, [prompts[k] for k in prompt_indices], write, safe_text if to_terminal else str, color)
    samples.context = context_length(model)
    engine = open_engine(model)
    for start in range(0, len(prompt_indices), SAVE_EVERY):
        steps = generate_rows(
            model,
            tokenizer,
            [ids[k] for k in prompt_indices[start : start + SAVE_EVERY]],
            sampling,
            numbers=range(start, len(prompt_indices)),
            max_new_tokens=arguments.max_new_tokens,
            stop=arguments.stop,
            seed=arguments.seed,
            num_candidates=arguments.show_candidates if arguments.show_steps else 0,
            engine=engine,
        )
        for k, step in steps:
            samples.add(start + k, step)
        samples.save()
    return samples.texts


class Samples:
    """The samples of one command: generated in batches, shown in order. Output of later samples is held back."""

    context: int | None = None

    def __init__(
        self, arguments: GenerateArguments, prompts: list[str], write, safe: Callable[[str], str], color: bool
    ):
        self.texts = list(prompts)
        self._prompts, self._write, self._safe = prompts, write, safe
        self._as_json, self._steps, self._output = _is_list(arguments), arguments.show_steps, arguments.output_file
        self._streams = arguments.stream and not self._steps and not self._as_json
        self._pending: list[list[str]] = [[self._title(k)] for k in range(len(prompts))]
        self._counts, self._done, self._next = [0] * len(prompts), [False] * len(prompts), 0
        self._explainers = [Explainer(color) for _ in prompts] if arguments.explain else None
        self._pieces = [[safe(prompt)] for prompt in prompts]  # the text as it is shown
        if self._streams:
            for pieces, pending in zip(self._pieces, self._pending, strict=True):
                pending += pieces
        self._show()

    def add(self, k: int, step: Step) -> None:
        """Add one token to sample `k`."""
        self.texts[k] += step.text
        self._counts[k] += 1
        piece = self._explainers[k].add(step.text, step.bits) if self._explainers else self._safe(step.text)
        self._pieces[k].append(piece)
        if self._steps:
            self._pending[k].append(self._safe(step_table(self._counts[k], step)))
        elif self._streams:
            self._pending[k].append(piece)
        if step.finish:
            self._end(k, step.finish)
        if k == self._next:
            self._show()

    def save(self) -> None:
        """Write the finished samples before the first unfinished one, so that an interrupted command keeps them."""
        if self._output and self._next:
            storage.write_file(Path(self._output), self._joined())

    def _end(self, k: int, finish: str) -> None:
        self._done[k], pending = True, self._pending[k]
        if self._as_json:
            pending.append(self._safe(self._line(k)))
            return
        if not self._streams:
            pending += self._pieces[k]
        if not self.texts[k].endswith("\n"):
            pending.append("\n")
        if finish == "context":
            pending.append(f"[stopped: {FINISH[finish]}, {self.context} tokens with the prompt]\n")
        if self._explainers and k + 1 == len(self.texts):
            pending.append(f"[{NOTE}]\n")

    def _show(self) -> None:
        """Write the pending output of the next sample, and of those after it as long as they are finished."""
        while self._next < len(self.texts):
            for text in self._pending[self._next]:
                self._write(text)
            self._pending[self._next] = []
            if not self._done[self._next]:
                return
            self._next += 1
            if not self._as_json:
                self.save()

    def _title(self, k: int) -> str:
        several = len(self._prompts) > 1 and not self._as_json
        return f"--- sample {k + 1} of {len(self._prompts)} ---\n" if several else ""

    def _line(self, k: int) -> str:
        prompt = self._prompts[k]
        return json.dumps({"prompt": prompt, "text": self.texts[k][len(prompt) :]}, ensure_ascii=False) + "\n"

    def _joined(self) -> str:
        if self._as_json:
            return "".join(self._line(k) for k in range(self._next))
        if len(self.texts) == 1:
            return self.texts[0]
        return "".join(f"{self._title(k)}{self.texts[k]}\n" for k in range(self._next))


def check_output(path: Path, flag: str = "output_file") -> Path:
    """Check that a file can be written at `path`, before slow work; return the target if it is a symbolic link."""
    path = storage.resolve_link(path)
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else f"lies in {path.absolute().parent}, which does not exist"
        raise UsageError(f"--{flag} {path} {what}", "a file to write", "choose another path")
    return path


def _encode(model, tokenizer, prompt: str, line: int) -> list[int]:
    """Tokenize a prompt and check that it leaves room for an answer. `line` is its line in the file, or 0."""
    try:
        ids = encode_prompt(tokenizer, prompt)
        room_for_answer(model, len(ids))
    except UsageError as error:
        if line:
            raise UsageError(f"line {line}: {error.problem}", error.expected, error.action) from None
        raise
    return ids


def _is_list(arguments: GenerateArguments) -> bool:
    return arguments.prompt_file is not None and arguments.prompt_file.endswith(".jsonl")


def read_prompt_file(flag: str, path: str) -> str:
    """Read the UTF-8 text file that a flag names; raise a `UsageError` if it cannot be read."""
    try:
        data = Path(path).read_bytes()
        if b"\0" in data:
            raise ValueError("it holds NUL bytes, as no text does")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"--{flag} {path} cannot be read ({reason})"
        raise UsageError(problem, "a UTF-8 text file", "check the path and the encoding") from None


def _read_prompts(arguments: GenerateArguments) -> list[str]:
    text = arguments.prompt or ""
    if arguments.prompt_file is not None:
        text = read_prompt_file("prompt_file", arguments.prompt_file)
    check_prompt(text)
    if not _is_list(arguments):
        return [text]
    for name in ("show_steps", "explain"):
        if getattr(arguments, name):
            raise UsageError(f"--{name} is given for a list of prompts", "one prompt", f"leave --{name} out")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    prompts = [_prompt_of(line, f"line {number} of {arguments.prompt_file}") for number, line in lines]
    if not prompts:
        check_prompt("")
    return prompts


def _prompt_of(line: str, place: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
        check_prompt(prompt if isinstance(prompt, str) else "")
    except (ValueError, RecursionError, KeyError, TypeError, UsageError):
        problem = f'{place} is no {{"prompt": ...}} with a text'
        raise UsageError(problem, "JSON lines", 'write e.g. {"prompt": "Once upon a time"}') from None
    return prompt
