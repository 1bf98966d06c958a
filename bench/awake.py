"""Keeps the cores of a round from halting between two messages (bench/native/awake.c)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from bench.children import Child
from bench.native import program

__all__ = ["awake"]

LOWEST = 19  # where sessions are weighed against each other, SCHED_IDLE alone says nothing
LIFETIME = 15 * 60  # seconds; no round takes longer, and a forgotten one ends itself


@contextmanager
def awake(cores: Iterable[int]) -> Iterator[None]:
    """A process on each of these cores that uses what nobody else wants.

    Raises:
        ChildFailed: it could not be built.
    """
    with ExitStack() as stack:
        for core in cores:
            command = ["--core", str(core), "--lifetime", str(LIFETIME)]
            child = Child("awake", command, program=program("awake"), niceness=LOWEST)
            stack.enter_context(child)
        yield
