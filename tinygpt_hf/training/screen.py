"""Lay out what a run says before a person: a row of a table for each line that begins with a known word, samples set apart.

tabled("model: 2.56M parameters on cpu", width=80, color=False)      # 'model      2.56M parameters on cpu'

Only a terminal is given this; in a file or a pipe the lines stay as they are said.
"""

import re

from tinygpt_hf.inference.terminal import fitted, wrapped

SAMPLE = "    "  # before a sample of the model
LABELS = {  # how a line begins -> what stands in the first column
    "rows: ": "text",
    "tokenizer: ": "tokenizer",
    "model: ": "model",
    "training: ": "plan",
    "to beat, in nats per token: ": "to beat",
    "memory: ": "memory",
    "done: ": "done",
    "note: ": "note",
}
COLUMN, NARROWEST, WIDEST = 11, 40, 120
STEP = re.compile(r"step [0-9]+: ")


def tabled(text: str, width: int, color: bool) -> str:
    """Lay out lines for a terminal of so many columns."""
    return "\n".join(_row(line, min(max(width, NARROWEST), WIDEST), color) for line in text.split("\n"))


def _row(line: str, width: int, color: bool) -> str:
    bold, dim, end = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if color else ("", "", "")
    if line.startswith(SAMPLE) and " | " in line:
        prompt, bar, said = line.removeprefix(SAMPLE).partition(" | ")
        parts = wrapped(f"{prompt}{bar}{said}", width - 6)
        shown = "\n".join(f"    \u2502 {part}" for part in parts)  # a line beside them
        return shown.replace(f"{prompt} | ", f"{dim}{prompt}{end} {bold}|{end} ", 1)
    label = next((label for label in LABELS if line.startswith(label)), None)
    name, words = (LABELS[label], line.removeprefix(label)) if label else ("", line)
    if step := STEP.match(line):
        name, words = step[0].strip(" :"), line[step.end() :]
    if not name:
        return fitted(line, width)
    return f"{bold}{name:<{COLUMN}}{end}" + f"\n{'':{COLUMN}}".join(wrapped(words, width - COLUMN))
