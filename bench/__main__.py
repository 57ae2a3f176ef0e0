"""``python -m fastdd.bench`` is ``fastdd bench``."""

import sys

from fastdd.cli import main

main(["bench", *sys.argv[1:]])
