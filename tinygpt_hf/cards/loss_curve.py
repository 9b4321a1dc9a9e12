"""Plot the loss, or another logged number, over the steps of runs as SVG.

svg = loss_curve({"": lines_of_log_jsonl}, {"unigram": 5.1})     # None if there is nothing to plot
svg = curve({"a": lines, "b": lines_of_another}, "grad_norm", "norm of the gradient over steps")
"""

import math
from html import escape

HALO = 'paint-order="stroke" stroke="white" stroke-width="4"'  # keeps text legible over lines
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 720, 300, 50, 30, 34, 16
COLORS = ("#2f6f9f", "#c05621", "#4a7c59", "#8a4fa3", "#9a7b1f", "#777777")
DASHES = ("", "7 3", "2 2", "9 3 2 3")  # distinguish runs without color
MOST_POINTS = 600  # per line, about one per pixel


def loss_curve(runs: dict[str, list[dict]], baselines: dict[str, float] | None = None) -> str | None:
    """Plot training and validation loss of runs, given as lines of log.jsonl by name; return None without a loss."""
    return curve(
        runs, "loss", "line training, dots validation loss (nats per token) over steps", "eval_loss", baselines
    )


def curve(
    runs: dict[str, list[dict]], key: str, words: str, dots: str = "", baselines: dict[str, float] | None = None
) -> str | None:
    """Plot the values of `key` as a line and those of `dots` as dots, with the legend `words` and dashed baselines.

    Returns None without values.
    """
    curves_of = {name: (_points(lines, key), _points(lines, dots)) for name, lines in runs.items()}
    points = [point for curves in curves_of.values() for curve in curves for point in curve]
    last = int(max((step for step, _ in points), default=0))
    if last <= 0:
        return None
    baselines = baselines or {}
    losses = [loss for _, loss in points] + list(baselines.values())
    low, high, tick = _scale(min(losses), max(losses))

    def position(step: float, loss: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return round(x, 1), round(TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low), 1)

    end = WIDTH - RIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for k in range(round((high - low) / tick) + 1):
        x, y = position(0, low + k * tick)
        out.append(f'<path d="M{x} {y}H{end}" stroke="#ddd"/>')
        out.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{low + k * tick:g}</text>')
    for step in range(0, last + 1, max(1, last // 5)):
        x, y = position(step, low)
        out.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{step}</text>')
    for name, loss in baselines.items():
        x, y = position(0, loss)
        out.append(f'<path d="M{x} {y}H{end}" stroke="#888" stroke-dasharray="4 4"/>')
        out.append(f'<text x="{x + 4}" y="{y - 3}" fill="#888" {HALO}>{escape(name)}</text>')
    for number, (name, (training, validation)) in enumerate(curves_of.items()):
        color, dash = COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        if training:
            path = " L".join(f"{x} {y}" for x, y in (position(*point) for point in training))
            out.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.5"{style}/>')
        for x, y in (position(*point) for point in validation):
            out.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>')
        text = escape(": ".join(filter(None, (name, "" if number else words))))
        out.append(
            f'<text x="{end - 8}" y="{TOP + 16 * (number + 1)}" text-anchor="end" fill="{color}" {HALO}>{text}</text>'
        )
    return "\n".join([*out, "</svg>\n"])


def _points(lines: list[dict], key: str) -> list[tuple[int, float]]:
    """Return the (step, value) points of a run, thinned to `MOST_POINTS`, always with the last one."""
    points = [(line["step"], line[key]) for line in lines if None not in (line.get("step"), line.get(key))]
    every = -(-len(points) // MOST_POINTS) or 1
    return points[::-1][::every][::-1]


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Choose (lower bound, upper bound, tick) of the axis. Ticks are 1, 2 or 5 times a power of ten, for at most seven lines."""
    span = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / 6))
    tick = next(power * k for k in (1, 2, 5, 10) if power * k >= span / 6)
    low = math.floor(low / tick) * tick
    return low, low + tick * max(1, math.ceil((high - low) / tick)), tick
