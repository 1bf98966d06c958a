"""A micro-benchmark as a value: a name, what it does, how its inner loop is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

__all__ = ["Case", "Loop", "Repeated"]


class Loop(Protocol):
    """An inner loop that is ready to be timed."""

    def __call__(self, count: int) -> int:
        """Go round `count` times; returns how many operations that were."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """The usual loop: one call after the other.

    Args:
        operation: called without arguments; what it returns is for the tests.
        each: operations that one call makes.
    """

    operation: Callable[[], object]
    each: int = 1

    def __call__(self, count: int) -> int:
        operation = self.operation
        for _ in repeat(None, count):
            operation()
        return count * self.each


@dataclass(frozen=True, slots=True)
class Case:
    """One step to measure.

    Args:
        name: for tables and the command line.
        unit: what one operation is; figures are per unit.
        about: what an operation does, for a reader of the table.
        setup: makes the loop; what has to be closed goes on the stack.
        counted: rounds of the loop over which instructions are counted: enough that the
            thousands by which starts differ are little, few enough for valgrind's speed.
    """

    name: str
    unit: str
    about: str
    setup: Callable[[ExitStack], Loop]
    counted: int = 1_000
