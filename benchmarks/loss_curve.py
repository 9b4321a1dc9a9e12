"""Draw the loss curve of one or more runs as an SVG picture, from their log.jsonl.

python benchmarks/loss_curve.py runs/shakespeare-char > benchmarks/loss_curve.svg
"""

import sys
from pathlib import Path

from tinygpt_hf.cards.loss_curve import loss_curve
from tinygpt_hf.training.log import read_log

if __name__ == "__main__":
    print(loss_curve({Path(folder).name: read_log(Path(folder) / "log.jsonl") for folder in sys.argv[1:]}), end="")
