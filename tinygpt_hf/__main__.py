"""Run the command line: `python -m tinygpt_hf` is the same as `tinygpt`."""

import sys

from tinygpt_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
