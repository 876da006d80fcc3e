"""`python -m tune_stoppers`: the same as the command `tune-stoppers`."""

import sys

from tune_stoppers.cli import main

if __name__ == "__main__":
    sys.exit(main())
