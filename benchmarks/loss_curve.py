"""The loss curve of one or more runs as an SVG picture, from their log.jsonl.

python benchmarks/loss_curve.py runs/shakespeare-char > benchmarks/loss_curve.svg
"""

import sys
from pathlib import Path

from tinygpt_hf.training.run_log import read_log

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 300, 50, 34, 16
COLORS = ("#2f6f9f", "#c05621", "#4a7c59")


def main(folders: list[str]) -> None:
    runs = {Path(folder).name: read_log(Path(folder) / "log.jsonl") for folder in folders}
    points = [line for lines in runs.values() for line in lines if "loss" in line]
    last = max(line["step"] for line in points)
    low, high = min(line["loss"] for line in points), max(line["loss"] for line in points)
    low, high = int(low * 2) / 2, int(high * 2 + 1) / 2  # half nats

    def place(step: float, loss: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 12) * step / last
        return round(x, 1), round(TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low), 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
    ]
    out.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for k in range(int((high - low) * 2) + 1):
        x, y = place(0, low + k / 2)
        out.append(
            f'<path d="M{x} {y}H{WIDTH - 12}" stroke="#ddd"/><text x="{x - 8}" y="{y + 4}" text-anchor="end">{low + k / 2:g}</text>'
        )
    for step in range(0, last + 1, max(1, last // 5)):
        x, y = place(step, low)
        out.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{step}</text>')
    for number, (name, lines) in enumerate(runs.items()):
        color = COLORS[number % len(COLORS)]
        path = " L".join(f"{x} {y}" for x, y in (place(line["step"], line["loss"]) for line in lines if "loss" in line))
        out.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        for line in lines:
            if "eval_loss" in line:
                x, y = place(line["step"], line["eval_loss"])
                out.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{color}"/>')
        text = f"{name}: line training, dots validation loss (nats per token) over steps"
        out.append(
            f'<text x="{WIDTH - 20}" y="{TOP + 16 * (number + 1)}" text-anchor="end" fill="{color}">{text}</text>'
        )
    print("\n".join([*out, "</svg>"]))


if __name__ == "__main__":
    main(sys.argv[1:])
