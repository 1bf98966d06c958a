"""Log lines: one per exchange, one per session end, in console form or JSON.

Tokens, keys, queries and bodies never reach a line: who writes one describes an
exchange by its route and by a path that shows only what can't be a secret
(`protocol.target.redacted`).
"""

from __future__ import annotations

__all__ = ["Log", "configure"]

import time
from functools import lru_cache
from typing import Literal, TextIO

import msgspec
import structlog

from relay.errors import StoreError
from relay.policy.sessions import Session, public_end

# Asked for every second or so by a console, a scraper, a live list.
POLLED = ("admin_status", "admin_metrics", "admin_console")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(form: Literal["auto", "console", "json"], level: str, output: TextIO) -> Log:
    """A log that writes to `output`: console form on a terminal, JSON otherwise, unless told."""
    console = form == "console" or (form == "auto" and output.isatty())
    renderer: structlog.types.Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=output.isatty(), pad_event_to=10)
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    logger = structlog.wrap_logger(
        structlog.PrintLogger(output),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
    )
    direct = None if console or LEVELS[level] > LEVELS["info"] else output
    return Log(logger, direct)


def _json(value: object, **_options: object) -> str:
    return msgspec.json.encode(value).decode()


class Log:
    """`relay.policy.interfaces.Log` over structlog.

    Args:
        direct: where lines of exchanges go as JSON without structlog, which takes five
            times as long; None where they need its rendering or its filter.
    """

    def __init__(
        self, logger: structlog.typing.FilteringBoundLogger, direct: TextIO | None = None
    ) -> None:
        self._logger = logger
        self._direct = direct

    def event(self, name: str, **fields: object) -> None:
        self._logger.info(name, **fields)

    def warning(self, name: str, **fields: object) -> None:
        self._logger.warning(name, **fields)

    def failure(self, name: str, error: BaseException, **fields: object) -> None:
        fields["error"] = str(error)
        if not isinstance(error, StoreError):
            fields["exc_info"] = error
        self._logger.error(name, **fields)

    def exchange(self, fields: dict[str, object]) -> None:
        status = fields.get("status")
        failed = isinstance(status, int) and status >= 500
        if fields.get("route") in POLLED and status == 200:
            self._logger.debug("exchange", **fields)
        elif self._direct is not None:
            level = "warning" if failed else "info"
            stamp = _stamp(time.time_ns())
            line = {**fields, "event": "exchange", "level": level, "timestamp": stamp}
            self._direct.write(msgspec.json.encode(line).decode() + "\n")
            self._direct.flush()
        elif failed:
            self._logger.warning("exchange", **fields)
        else:
            self._logger.info("exchange", **fields)

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
        self._logger.info(
            "session", **{key: value for key, value in fields.items() if value is not None}
        )


def _stamp(nanoseconds: int) -> str:
    """Unix time as ISO 8601 in UTC with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
