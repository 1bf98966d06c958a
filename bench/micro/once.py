"""`python -m bench.micro.once NAME COUNT`: run one loop and print its operations.

For the instruction counters, which count whole processes: two runs that differ in
COUNT alone differ by the loop alone.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from bench.micro.cases import CASES
from bench.micro.timing import without_collection

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    name, count = arguments
    with ExitStack() as stack:
        loop = CASES[name].setup(stack)
        with without_collection():
            print(loop(int(count)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
