"""One readiness probe: is there a bot, and does it say that it can take a session?"""

from __future__ import annotations

__all__ = ["READY", "probe"]

import h11
import trio

from relay.policy.catalog import Address

# A bot on the same machine or network answers in milliseconds; one that takes
# longer than a second for its readiness is not fit to take a call.
PROBE_TIMEOUT = 2.0
MAX_ANSWER = 16 * 1024

READY = "ready"


async def probe(address: Address, path: str) -> str:
    """Ask `GET path`; `READY`, or a short sentence that says why not.

    200 is ready. 404 is ready too: the bot is up and does not report (docs/configuration.md).
    """
    try:
        with trio.fail_after(PROBE_TIMEOUT):
            status = await _status(address, path)
    except trio.TooSlowError:
        return f"no answer within {PROBE_TIMEOUT:g} s"
    except (OSError, trio.BrokenResourceError):
        return "cannot connect"
    except (h11.ProtocolError, ValueError):
        return "the answer is not HTTP"
    return READY if status in (200, 404) else f"answered {status}"


async def _status(address: Address, path: str) -> int:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER)
    request = h11.Request(
        method=b"GET",
        target=path.encode("ascii"),
        headers=[(b"host", address.authority.encode("idna")), (b"connection", b"close")],
    )
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                return event.status_code
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(MAX_ANSWER))
            elif isinstance(event, h11.ConnectionClosed):
                raise ValueError("closed without an answer")
