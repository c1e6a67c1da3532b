"""`python -m selfseg` is the command `selfseg`."""

import sys

from selfseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
