"""Train a tokenizer from text.

    python train_tokenizer.py --config configs/shakespeare-bpe.yaml --train_file tinyshakespeare.txt
    python train_tokenizer.py --train_file my.txt --vocab_size 4096 --output_dir runs/mine/tokenizer
    python train_tokenizer.py --help

The same as `tinygpt train-tokenizer`.
"""

import sys

from tinygpt_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-tokenizer", *sys.argv[1:]]))
