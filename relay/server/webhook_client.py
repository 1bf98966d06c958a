"""Posts one webhook; imported only where an organization has one, since httpx is large."""

from __future__ import annotations

__all__ = ["TIMEOUT", "poster"]

import ssl
from collections.abc import Mapping

import httpx
import trio

from relay.policy.webhooks import Answer
from relay.server.webhooks import Post

# Seconds for one attempt, from the name's lookup to the answer's head: a receiver should
# take the event and answer, and work on it later (Standard Webhooks asks for 15 to 30).
TIMEOUT = 15.0
# Characters of a reason in a log line.
MAX_REASON = 200


def poster(timeout: float = TIMEOUT) -> Post:
    """A function that posts and never raises but for cancellation.

    Certificates are verified with the system's authorities. Redirects are not followed, an
    answer's body is not read, proxies of the environment are not asked.
    """
    context = ssl.create_default_context()

    async def post(url: str, fields: Mapping[str, str], body: bytes) -> Answer | str:
        try:
            with trio.fail_after(timeout):
                return await _post(context, url, fields, body)
        except trio.TooSlowError:
            return f"no answer within {timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, trio.BrokenResourceError) as error:
            return (str(error) or type(error).__name__)[:MAX_REASON]

    return post


async def _post(
    context: ssl.SSLContext, url: str, fields: Mapping[str, str], body: bytes
) -> Answer:
    # A client for each attempt: a body that is not read leaves no connection to use again.
    client = httpx.AsyncClient(verify=context, trust_env=False, timeout=None)
    async with client, client.stream("POST", url, headers=fields, content=body) as answer:
        return Answer(answer.status_code, answer.headers.get("retry-after"))
