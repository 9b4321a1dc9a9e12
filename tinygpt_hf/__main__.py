"""`python -m tinygpt_hf` is `tinygpt`."""

import sys

from tinygpt_hf.cli import main

if __name__ == "__main__":
    sys.exit(main())
