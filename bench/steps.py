"""Many small clients in one process: plain generators over one epoll.

Theory: a step yields the socket and the events that it waits for, and is
resumed when they are there. Every wait is one-shot, so a socket that nobody
waits for can never wake the loop. Every wait is bounded: a step that waits
longer than PATIENCE gets TimeoutError.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

__all__ = ["PATIENCE", "READ", "WRITE", "Steps", "Wait", "run"]

T = TypeVar("T")
Wait = tuple[socket.socket, int]
Steps = Generator[Wait, None, T]

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
# Longer than the relay's own longest wait before it answers (attach_timeout, 30 s).
PATIENCE = 35.0
# How late a timeout may be noticed, and how often an otherwise idle loop wakes.
SWEEP = 0.5


def run(tasks: Iterable[Steps[None]], deadline: float) -> bool:
    """Run every task to its end.

    Args:
        deadline: seconds on the monotonic clock, after which tasks are closed where they wait.

    Returns:
        True when all ended by themselves.
    """
    epoll = select.epoll()
    waiting: dict[int, tuple[Steps[None], float]] = {}

    def resume(task: Steps[None], error: BaseException | None = None) -> None:
        try:
            sock, events = next(task) if error is None else task.throw(error)
        except StopIteration:
            return
        fd, mask = sock.fileno(), events | select.EPOLLONESHOT
        try:
            epoll.modify(fd, mask)
        except FileNotFoundError:
            epoll.register(fd, mask)
        waiting[fd] = (task, time.monotonic() + PATIENCE)

    try:
        for task in tasks:
            resume(task)
        swept = time.monotonic()
        while waiting and (now := time.monotonic()) < deadline:
            for fd, _ in epoll.poll(min(SWEEP, deadline - now)):
                resume(waiting.pop(fd)[0])
            if now - swept > SWEEP:
                swept = now
                for fd in [fd for fd, (_, until) in waiting.items() if until < now]:
                    resume(waiting.pop(fd)[0], TimeoutError(f"no progress in {PATIENCE:g} s"))
        return not waiting
    finally:
        for task, _ in waiting.values():
            task.close()
        epoll.close()
