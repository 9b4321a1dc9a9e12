"""Train a small GPT: from text to a run folder that Transformers loads.

    python run_clm.py --config configs/quickstart.yaml
    accelerate launch run_clm.py --config configs/shakespeare-bpe.yaml --train_file tinyshakespeare.txt
    python run_clm.py --help

The same as `tinygpt train`.
"""

import sys

from tinygpt_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
