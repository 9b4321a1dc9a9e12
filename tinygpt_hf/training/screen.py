"""Format the messages of a run for a terminal: a table row for each line with a known prefix, samples set apart.

as_table("model: 2.56M parameters on cpu", width=80, color=False)      # 'model      2.56M parameters on cpu'

In a file or a pipe the lines stay unchanged.
"""

import re

from tinygpt_hf.inference.terminal import fitted, wrapped

SAMPLE = "    "  # prefix of a sample
LABELS = {  # prefix of a line -> label in the first column
    "rows: ": "text",
    "tokenizer: ": "tokenizer",
    "model: ": "model",
    "training: ": "plan",
    "to beat, in nats per token: ": "to beat",
    "memory: ": "memory",
    "done: ": "done",
    "note: ": "note",
}
LABEL_WIDTH, MIN_WIDTH, MAX_WIDTH = 11, 40, 120
STEP = re.compile(r"step [0-9]+: ")


def as_table(text: str, width: int, color: bool) -> str:
    """Format lines for a terminal of `width` columns."""
    return "\n".join(_row(line, min(max(width, MIN_WIDTH), MAX_WIDTH), color) for line in text.split("\n"))


def _row(line: str, width: int, color: bool) -> str:
    bold, dim, end = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if color else ("", "", "")
    if line.startswith(SAMPLE) and " | " in line:
        sample = line.removeprefix(SAMPLE)
        prompt = sample.partition(" | ")[0]
        shown = "\n".join(f"    \u2502 {part}" for part in wrapped(sample, width - 6))
        return shown.replace(f"{prompt} | ", f"{dim}{prompt}{end} {bold}|{end} ", 1)
    label = next((label for label in LABELS if line.startswith(label)), None)
    name, words = (LABELS[label], line.removeprefix(label)) if label else ("", line)
    if step := STEP.match(line):
        name, words = step[0].strip(" :"), line[step.end() :]
    if not name:
        return fitted(line, width)
    return f"{bold}{name:<{LABEL_WIDTH}}{end}" + f"\n{'':{LABEL_WIDTH}}".join(wrapped(words, width - LABEL_WIDTH))
