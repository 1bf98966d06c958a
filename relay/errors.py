"""The one exception that a refused caller, a failing bot or a wrong setting becomes.

Theory: whoever finds a fault raises `Refusal` with everything that the answer
needs (status, sentence, headers) and a `cause` for logs and metrics. Nobody
maps exceptions to statuses later, and no exception text reaches a caller: the
sentences are written for callers where they are raised.
"""

from __future__ import annotations

__all__ = ["ConfigError", "Refusal", "RelayError", "StoreError"]


class RelayError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(RelayError):
    """A setting or a command line that cannot be used; the text is for the operator."""


class StoreError(RelayError):
    """The session store can't be used now; callers get a 503 and the log gets the text."""


class Refusal(RelayError):
    """An answer to the caller other than what was asked for.

    Args:
        status: HTTP status, 400 to 599.
        reason: one sentence for the caller: what was wrong and what was expected.
        cause: a fixed label in snake_case for logs and metrics, for instance "token_expired".
        code: the `code` member of the error body; the status as text unless given.
        error: the `error` member of the error body; the reason unless given.
        headers: further response fields as (name, value) byte pairs.
        close: the connection cannot be used for another request.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        cause: str,
        code: str | None = None,
        error: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.cause = cause
        self.code = code or str(status)
        self.error = error or reason
        self.headers = headers
        self.close = close
