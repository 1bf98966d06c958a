"""Running a bot's entry point: its errors stay its own, its time is bounded, its end is awaited."""

from __future__ import annotations

import asyncio
from types import ModuleType

from loguru import logger
from pipecatcloud.agent import SessionArguments
from starlette.websockets import WebSocketDisconnect

# How long a cancelled bot may take to end.
CANCEL_TIMEOUT = 5.0


class Sessions:
    """The running calls of `bot()`.

    Args:
        module: the bot's module, which has `async def bot(args)` by the time a session starts.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, args: SessionArguments, limit: float | None = None) -> bool:
        """Run the bot to its end or cancel it after `limit` seconds; whether it ended by itself."""
        task = asyncio.create_task(self._module.bot(args))
        self._running.add(task)
        logger.info("session {} begins", args.session_id)
        try:
            await asyncio.wait({task}, timeout=limit)
            ended = task.done()
            if not ended:
                logger.info("session {} is over its limit of {} s", args.session_id, limit)
                await cancel({task})
            return ended and succeeded(task)
        finally:
            task.cancel()
            self._running.discard(task)
            logger.info("session {} has ended", args.session_id)

    async def drain(self, patience: float) -> None:
        """Wait for the running sessions, then cancel those that are left."""
        if self._running:
            logger.info("waiting {} s for {} session(s)", patience, len(self._running))
            await asyncio.wait(self._running, timeout=patience)
        await cancel(set(self._running))


async def cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel and wait, but not forever."""
    for task in tasks:
        task.cancel()
    if tasks:
        _, deaf = await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)
        for task in deaf:
            logger.error("the bot does not end although cancelled: {}", task)


def succeeded(task: asyncio.Task[None]) -> bool:
    """Whether a task that is done returned; what it raised instead is logged."""
    if task.cancelled():
        return False
    error = task.exception()
    if isinstance(error, WebSocketDisconnect):
        return True  # how Starlette tells a bot that the client has left
    if error is not None:
        logger.opt(exception=error).error("the bot failed")
    return error is None
