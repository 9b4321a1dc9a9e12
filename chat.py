"""Talk to a model.

    python chat.py                     # the newest finished run in runs/
    python chat.py runs/quickstart --prompt "Who are you?"
    python chat.py --help

The same as `tinygpt chat`.
"""

import sys

from tinygpt_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["chat", *sys.argv[1:]]))
