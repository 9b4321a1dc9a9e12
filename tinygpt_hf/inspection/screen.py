"""Format an inspection for the terminal: the text with its surprisals, and a table for each requested view.

text = screen(inspection, color=True, width=80)          # color only repeats what the numbers say
"""

import io
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinygpt_hf.inference.generation import MOST_BITS, bar, quoted
from tinygpt_hf.inference.terminal import NOTE, explained
from tinygpt_hf.inspection.attention import summarize_heads
from tinygpt_hf.inspection.history import learned_at
from tinygpt_hf.inspection.inspect import Inspection
from tinygpt_hf.inspection.lens import right_from

NARROWEST, WIDEST = 40, 120
ALL_TOKENS, MOST_SURPRISING = 40, 20  # tables show all tokens of a text up to 40 tokens, else the 20 most surprising
BAR = 6  # characters of a full bar
WORD = 11  # columns of the terminal for a token
REST = 61  # columns of the token table without its last one


def screen(inspection: Inspection, color: bool = False, width: int | None = None) -> str:
    """Format all results in lines of at most `width` columns (default: the terminal's)."""
    width = width or min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    system: Any = "256" if color else None
    buffer = io.StringIO()
    console = Console(
        file=buffer, force_terminal=color, color_system=system, width=width, highlight=False, markup=False,
        emoji=False, legacy_windows=False, _environ={},
    )  # fmt: skip
    positions = list(range(1, len(inspection.tokens)))
    words = "every token"
    if len(positions) > ALL_TOKENS:
        most = sorted(positions, key=lambda position: -inspection.tokens[position].bits)[:MOST_SURPRISING]
        positions, words = sorted(most), f"the {MOST_SURPRISING} most surprising tokens; --html shows all"
    console.print(f"{inspection.model}: {inspection.summary}\n", style="bold" if color else None)
    console.print(colored_text(inspection, color))
    console.print(f"\n({NOTE})\n", style="dim" if color else None)
    console.print(_token_table(inspection, positions, words, width))
    if inspection.lens:
        console.print(_lens_table(inspection, positions, width))
    if inspection.maps is not None:
        console.print(_attention_table(inspection, width))
    if inspection.moments:
        console.print(_history_table(inspection))
        for moment in inspection.moments if len(inspection.measured) <= ALL_TOKENS else ():
            console.print(Text(f"\nstep {moment.step}, {moment.mean:.2f} bits a token", style="italic"))
            console.print(colored_text(inspection, color, moment.bits))
    lines = buffer.getvalue().split("\n")
    return "\n".join(line if color else line.rstrip() for line in lines)


def colored_text(inspection: Inspection, color: bool, bits: list[float] | None = None) -> Text:
    """Mark the text with its surprisals, or with other `bits` for all tokens but the first."""
    all_bits = [None, *(bits or [token.bits for token in inspection.measured])]
    pairs = zip(inspection.tokens, all_bits, strict=True)
    return Text.from_ansi("".join(explained(token.text, own, color) for token, own in pairs))


def _table(title: str, columns: Sequence[tuple], rows: Iterable[Sequence[str]], width: int = WIDEST) -> Table:
    """Make a table. `columns` are (name, "left" or "right", width from which on the column is visible)."""
    visible = [number for number, (_, _, least) in enumerate(columns) if width >= least]
    table = Table(title=title, title_justify="left", title_style="italic", box=None, pad_edge=False, padding=(0, 1))
    for name, justify, _ in (columns[number] for number in visible):
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(row[number] for number in visible))
    return table


def _fitting(text: str, width: int = WORD) -> str:
    cut = Text(text)
    cut.truncate(width, overflow="ellipsis")
    return cut.plain


def _token_table(inspection: Inspection, positions: list[int], words: str, width: int) -> Table:
    right, left = "right", "left"
    columns = (
        ("#", right, 0), ("token", left, 0), ("id", right, 76), ("bytes", right, 76), ("bits", right, 0), ("", left, 64),
        ("rank", right, 48), ("chance", right, 0), ("instead", left, 56),
    )  # fmt: skip
    freed = (13 if width < 76 else 0) + (8 if width < 64 else 0)  # by the hidden columns for ids, bytes and bars

    def row(position: int) -> Sequence[str]:
        token = inspection.tokens[position]
        others = [(text, p) for text, p in token.candidates if text != token.text and p > 0.005]
        alternatives = " ".join(f"{quoted(text)} {p:.0%}" for text, p in others)
        numbers = f"{token.bits:.2f}", bar(token.bits / MOST_BITS, BAR), str(token.rank), f"{token.probability:.1%}"
        name, rest = _fitting(quoted(token.text)), _fitting(alternatives, max(width - REST + freed, 1))
        return str(position), name, str(token.id), str(token.bytes), *numbers, rest

    return _table(f"Tokens: {words}", columns, map(row, positions), width)


def _lens_table(inspection: Inspection, positions: list[int], width: int) -> Table:
    """Make a table with a row per token and a column per layer; a narrow one skips layers between the first and the last."""
    last = len(inspection.lens) - 1
    columns = max(2, min(last + 1, (width - WORD - 12) // (WORD + 1)))
    layers = sorted({round(k * last / (columns - 1)) for k in range(columns)})
    names = ["start" if layer == 0 else f"layer {layer}" for layer in layers]
    title = "\nWhat each layer would have said (* is right)"
    since, rows = right_from(inspection.lens), []
    labels = {None: "-", 0: "start"}
    for position in positions:
        k = position - 1
        words = {n: quoted(inspection.words[int(inspection.lens[n].ids[k, 0])]) for n in layers}
        predictions = [_fitting("*" * int(inspection.lens[n].ranks[k] == 1) + word) for n, word in words.items()]
        first = labels.get(since[k], str(since[k]))
        rows.append((_fitting(quoted(inspection.tokens[position].text)), *predictions, first))
    table_columns = [("token", "left", 0), *((name, "left", 0) for name in names), ("right from", "right", 0)]
    return _table(title, table_columns, rows)


def _attention_table(inspection: Inspection, width: int) -> Table:
    """Make a table with a row per head: its summary, and the token that the last token attends to most."""
    title = "\nAttention of the heads, averaged over the text (maps: --html)"
    right = [("layer", 0), ("head", 0), ("itself", 0), ("one before", 0), ("the first", 48), ("tokens back", 80)]
    columns = [*((name, "right", least) for name, least in right), ("the last token attends to", "left", 56)]
    rows = []
    for layer, heads in enumerate(summarize_heads(inspection.maps), 1):
        for head, head_summary in enumerate(heads, 1):
            weight, position = inspection.maps[layer - 1, head - 1, -1].max(0)
            target = f"{quoted(inspection.tokens[int(position)].text)} {float(weight):.0%}"
            shares = (f"{head_summary[name]:.0%}" for name in ("itself", "previous", "first"))
            rows.append((str(layer), str(head), *shares, f"{head_summary['back']:.1f}", target))
    return _table(title, columns, rows, width)


def _history_table(inspection: Inspection) -> Table:
    """Make a table with a row per saved step: the mean bits, and the tokens with rank 1 from that step on."""
    title = "\nBits per token over the run"
    highest = max(moment.mean for moment in inspection.moments)
    since = learned_at(inspection.moments)
    rows = []
    for moment in inspection.moments:
        learned = [
            quoted(token.text) for token, step in zip(inspection.measured, since, strict=True) if step == moment.step
        ]
        rows.append((str(moment.step), f"{moment.mean:.2f}", bar(moment.mean / highest, BAR), " ".join(learned)))
    columns = ("step", "right", 0), ("bits", "right", 0), ("", "left", 0), ("first choice from here on", "left", 0)
    table = _table(title, columns, rows)
    table.columns[-1].no_wrap = False
    return table
