"""`python -m selfseg.cli` is the command `selfseg`, as `python -m selfseg` is."""

import sys

from selfseg.cli import entry

if __name__ == "__main__":
    sys.exit(entry())
