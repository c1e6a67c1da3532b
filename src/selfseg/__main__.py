"""`python -m selfseg` is the command `selfseg`."""

import sys

from selfseg.cli import entry

if __name__ == "__main__":
    sys.exit(entry())
