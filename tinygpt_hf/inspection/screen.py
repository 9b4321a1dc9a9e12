"""Lay an inspection out for the terminal: the text with the cost of its tokens, and a table for each thing that was asked for.

text = screen(seen, color=True, width=80)          # one string; without color every number still stands there
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
from tinygpt_hf.inspection.attention import head_habits
from tinygpt_hf.inspection.history import learned_at
from tinygpt_hf.inspection.inspect import Inspection
from tinygpt_hf.inspection.lens import right_from

NARROWEST, WIDEST = 40, 120
ALL_TOKENS, MOST_SURPRISING = 40, 20  # of a text up to 40 tokens the tables show all, of a longer one these
BAR = 6  # signs of the longest bar
WORD = 11  # columns of the terminal for a token
REST = 61  # columns beside the last one of the table of tokens


def screen(seen: Inspection, color: bool = False, width: int | None = None) -> str:
    """Lay out everything that was seen, in lines of at most `width` columns: by default those of the terminal."""
    width = width or min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    system: Any = "256" if color else None
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=color, color_system=system, width=width, highlight=False, markup=False,
        emoji=False, legacy_windows=False, _environ={},
    )  # fmt: skip
    places = list(range(1, len(seen.tokens)))
    words = "every token"
    if len(places) > ALL_TOKENS:
        most = sorted(places, key=lambda place: -seen.tokens[place].bits)[:MOST_SURPRISING]
        places, words = sorted(most), f"the {MOST_SURPRISING} most surprising tokens; --html shows all"
    console.print(f"{seen.model}: {seen.summary}\n", style="bold" if color else None)
    console.print(colored_text(seen, color))
    console.print(f"\n({NOTE})\n", style="dim" if color else None)
    console.print(_token_table(seen, places, words, width))
    if seen.lens:
        console.print(_lens_table(seen, places, width))
    if seen.maps is not None:
        console.print(_attention_table(seen, width))
    if seen.moments:
        console.print(_history_table(seen))
        for moment in seen.moments if len(seen.measured) <= ALL_TOKENS else ():
            console.print(Text(f"\nstep {moment.step}, {moment.mean:.2f} bits a token", style="italic"))
            console.print(colored_text(seen, color, moment.bits))
    lines = written.getvalue().split("\n")
    return "\n".join(line if color else line.rstrip() for line in lines)


def colored_text(seen: Inspection, color: bool, bits: list[float] | None = None) -> Text:
    """Lay out the text with what its tokens cost; `bits`: another model's, of all tokens but the first."""
    costs = [None, *(bits or [token.bits for token in seen.measured])]
    pairs = zip(seen.tokens, costs, strict=True)
    return Text.from_ansi("".join(explained(token.text, cost, color) for token, cost in pairs))


def _table(title: str, columns: Sequence[tuple], rows: Iterable[Sequence[str]], width: int = WIDEST) -> Table:
    """Lay out a table. `columns`: (name, "left" or "right", columns of the terminal from which on it is shown)."""
    shown = [number for number, (_, _, least) in enumerate(columns) if width >= least]
    table = Table(title=title, title_justify="left", title_style="italic", box=None, pad_edge=False, padding=(0, 1))
    for name, justify, _ in (columns[number] for number in shown):
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    return table


def _fitting(text: str, width: int = WORD) -> str:
    """Cut a text to so many columns."""
    cut = Text(text)
    cut.truncate(width, overflow="ellipsis")
    return cut.plain


def _token_table(seen: Inspection, places: list[int], words: str, width: int) -> Table:
    right, left = "right", "left"
    columns = (
        ("#", right, 0), ("token", left, 0), ("id", right, 76), ("bytes", right, 76), ("bits", right, 0), ("", left, 64),
        ("rank", right, 48), ("chance", right, 0), ("instead", left, 56),
    )  # fmt: skip
    hidden = (13 if width < 76 else 0) + (
        8 if width < 64 else 0
    )  # columns of the terminal that ids, bytes and bars leave

    def row(place: int) -> Sequence[str]:
        token = seen.tokens[place]
        others = [
            f"{quoted(text)} {chance:.0%}" for text, chance in token.candidates if text != token.text and chance > 0.005
        ]
        numbers = f"{token.bits:.2f}", bar(token.bits / MOST_BITS, BAR), str(token.rank), f"{token.probability:.1%}"
        name, rest = _fitting(quoted(token.text)), _fitting(" ".join(others), max(width - REST + hidden, 1))
        return str(place), name, str(token.id), str(token.bytes), *numbers, rest

    return _table(f"Tokens: {words}", columns, map(row, places), width)


def _lens_table(seen: Inspection, places: list[int], width: int) -> Table:
    """A row for each token, a column for each layer, or for as many as there is room for, the first and the last among them."""
    last = len(seen.lens) - 1
    columns = max(2, min(last + 1, (width - WORD - 12) // (WORD + 1)))
    layers = sorted({round(k * last / (columns - 1)) for k in range(columns)})
    names = ["start" if layer == 0 else f"layer {layer}" for layer in layers]
    title = "\nWhat each layer would have said (* is right)"
    since, rows = right_from(seen.lens), []
    for place in places:
        k = place - 1
        words = {n: quoted(seen.words[int(seen.lens[n].ids[k, 0])]) for n in layers}
        said = [_fitting("*" * int(seen.lens[n].ranks[k] == 1) + word) for n, word in words.items()]
        first = "-" if since[k] is None else "start" if since[k] == 0 else str(since[k])
        rows.append((_fitting(quoted(seen.tokens[place].text)), *said, first))
    return _table(
        title, [("token", "left", 0), *((name, "left", 0) for name in names), ("right from", "right", 0)], rows
    )


def _attention_table(seen: Inspection, width: int) -> Table:
    """A row for each head: its habits, and what the last token looks at most."""
    title = "\nWhere the heads look, on average over the text (maps: --html)"
    right = [("layer", 0), ("head", 0), ("itself", 0), ("one before", 0), ("the first", 48), ("tokens back", 80)]
    columns = [*((name, "right", least) for name, least in right), ("the last token looks at", "left", 56)]
    rows = []
    for layer, heads in enumerate(head_habits(seen.maps), 1):
        for head, habit in enumerate(heads, 1):
            weight, place = seen.maps[layer - 1, head - 1, -1].max(0)
            looked = f"{quoted(seen.tokens[int(place)].text)} {float(weight):.0%}"
            shares = (f"{habit[name]:.0%}" for name in ("itself", "previous", "first"))
            rows.append((str(layer), str(head), *shares, f"{habit['back']:.1f}", looked))
    return _table(title, columns, rows, width)


def _history_table(seen: Inspection) -> Table:
    """A row for each kept step: what the text cost, and the tokens that are the first choice from there on."""
    title = "\nBits per token over the run"
    highest = max(moment.mean for moment in seen.moments)
    since = learned_at(seen.moments)
    rows = []
    for moment in seen.moments:
        learned = [quoted(token.text) for token, step in zip(seen.measured, since, strict=True) if step == moment.step]
        signs = bar(moment.mean / highest, BAR)
        rows.append((str(moment.step), f"{moment.mean:.2f}", signs, " ".join(learned)))
    columns = ("step", "right", 0), ("bits", "right", 0), ("", "left", 0), ("first choice from here on", "left", 0)
    table = _table(title, columns, rows)
    table.columns[-1].no_wrap = False
    return table
