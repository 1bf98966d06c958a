"""Log lines: one per exchange, one per session end, in console form or JSON.

Tokens, keys, queries and bodies never reach a line: who writes one describes an
exchange by its route and by a path that shows only what can't be a secret
(`protocol.target.redacted`).
"""

from __future__ import annotations

__all__ = ["Log"]

import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, TextIO

import msgspec
import structlog

from relay.errors import StoreError
from relay.policy.sessions import Session, public_end

# Asked for every second or so by a console, a scraper, a live list.
POLLED = ("admin_status", "admin_metrics", "admin_console")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Output:
    """Writes lines to a descriptor; where that fails, they are counted and nothing else happens.

    A disk that is full, or a reader that has gone, must not end a daemon with live calls.
    Nothing is buffered, so that the interpreter finds nothing to flush at its end.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._torn = False
        self.lost = 0

    def msg(self, line: str) -> None:
        self.write(line.encode("utf-8", "backslashreplace"))

    def write(self, line: bytes) -> None:
        rest = b"\n%s\n" % line if self._torn else line + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
                self._torn = bool(rest)
        except OSError:
            self.lost += 1

    debug = info = warning = error = msg


def _json(value: object, **_options: object) -> str:
    return msgspec.json.encode(value).decode()


class Log:
    """`relay.policy.interfaces.Log` over structlog.

    Args:
        output: where the lines go, a file with a descriptor.

    Lines of exchanges go as JSON without structlog, which takes five times as long, where
    they need neither its rendering nor its filter.
    """

    def __init__(
        self, form: Literal["auto", "console", "json"], level: str, output: TextIO
    ) -> None:
        self._output = Output(output.fileno())
        self._is_terminal = output.isatty()
        self.become(form, level)

    def become(self, form: Literal["auto", "console", "json"], level: str) -> None:
        """Write in this form from now on: `auto` is `console` on a terminal, else `json`."""
        console = form == "console" or (form == "auto" and self._is_terminal)
        self._direct = not console and LEVELS[level] <= LEVELS["info"]
        renderer: structlog.types.Processor
        if console:
            renderer = structlog.dev.ConsoleRenderer(colors=self._is_terminal, pad_event_to=10)
        else:
            renderer = structlog.processors.JSONRenderer(serializer=_json)
        self._logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            self._output,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        )

    def _say(self, level: str, name: str, fields: dict[str, object]) -> None:
        self._write(partial(self._logger.log, LEVELS[level], name, **fields))

    def _write(self, write: Callable[[], object]) -> None:
        before = self._output.lost
        write()
        if before and self._output.lost == before:
            self._logger.warning("log_lost", count=before)
            if self._output.lost == before:
                self._output.lost = 0  # there is room again

    def event(self, name: str, **fields: object) -> None:
        self._say("info", name, fields)

    def warning(self, name: str, **fields: object) -> None:
        self._say("warning", name, fields)

    def failure(self, name: str, error: BaseException, **fields: object) -> None:
        fields["error"] = str(error)
        if not isinstance(error, StoreError):
            fields["exc_info"] = error
        self._say("error", name, fields)

    def exchange(self, fields: dict[str, object]) -> None:
        status = fields.get("status")
        failed = isinstance(status, int) and status >= 500
        if fields.get("route") in POLLED and status == 200:
            self._say("debug", "exchange", fields)
        elif self._direct:
            level = "warning" if failed else "info"
            stamp = _stamp(time.time_ns())
            line = {**fields, "event": "exchange", "level": level, "timestamp": stamp}
            self._write(partial(self._output.write, msgspec.json.encode(line)))
        elif failed:
            self._say("warning", "exchange", fields)
        else:
            self._say("info", "exchange", fields)

    def session_end(self, session: Session) -> None:
        """One session that has ended."""
        end_state, status = public_end(session.cause, session.transport)
        started = session.started
        fields = {
            "session_id": session.id,
            "agent": session.agent,
            "instance": session.instance,
            "cause": session.cause,
            "end_state": end_state,
            "completion_status": status,
            "close_code": session.close_code,
            "close_reason": session.close_reason or None,
            "seconds": round((session.ended or 0) - started, 3) if started else None,
            "waited_ms": _milliseconds(session.took),
            "queued_ms": _milliseconds(session.queued),
            "cold": session.cold,
            "figures": msgspec.json.decode(session.figures) if session.figures else None,
        }
        shown = {key: value for key, value in fields.items() if value is not None}
        self._say("info", "session", shown)


def _stamp(nanoseconds: int) -> str:
    """Unix time as ISO 8601 in UTC with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
