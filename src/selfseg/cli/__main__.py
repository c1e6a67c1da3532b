"""`python -m selfseg.cli` is the command `selfseg`, as `python -m selfseg` is."""

import sys

from selfseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
