"""``python -m fastdd.run [OPTIONS] SCRIPT [ARGS...]``: the same as ``fastdd run``."""

import sys

from fastdd.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
