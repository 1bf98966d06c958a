"""What an instance is asked over HTTP: can it take a session, and what can it do?"""

from __future__ import annotations

__all__ = ["READY", "answers", "ask_capabilities", "probe"]

import h11
import trio

from relay.policy.capabilities import MAX_CAPABILITIES, PATH, Capability, parse
from relay.policy.catalog import Address, Trust
from relay.policy.health import READY
from relay.tls import SSLError, toward_bots, words_of

# A bot on the same machine or network answers in milliseconds; one that takes
# longer than a second for its readiness is not fit to take a call.
PROBE_TIMEOUT = 2.0
MAX_ANSWER = 16 * 1024
# Whoever has a good certificate for its address.
ANYBODY = Trust()


async def probe(address: Address, path: str, trust: Trust = ANYBODY) -> str:
    """Ask `GET path`; `READY`, or a short sentence that says why not.

    200 is ready. 404 is ready too: the bot is up and does not report (docs/configuration.md).
    """
    try:
        with trio.fail_after(PROBE_TIMEOUT):
            status, _ = await _get(address, path, 0, trust)
    except trio.TooSlowError:
        return f"no answer within {PROBE_TIMEOUT:g} s"
    except (OSError, trio.BrokenResourceError) as error:
        failed = error.__cause__
        return f"no TLS: {words_of(failed)}" if isinstance(failed, SSLError) else "cannot connect"
    except (h11.ProtocolError, ValueError):
        return "the answer is not HTTP"
    return READY if status in (200, 404) else f"answered {status}"


def answers(state: str) -> bool:
    """Whether a bot was there to say what `probe` says."""
    return state == READY or state.startswith("answered ")


async def ask_capabilities(
    address: Address, trust: Trust = ANYBODY
) -> dict[str, Capability] | None:
    """What the bot says at `/pcc/capabilities`; None if it says nothing, or in another form."""
    try:
        with trio.fail_after(PROBE_TIMEOUT):
            status, body = await _get(address, PATH, MAX_CAPABILITIES + 1, trust)
    except (trio.TooSlowError, OSError, trio.BrokenResourceError, h11.ProtocolError, ValueError):
        return None
    return parse(body) if status == 200 else None


async def _get(address: Address, path: str, most: int, trust: Trust) -> tuple[int, bytes]:
    """The status of `GET path`, and the body until more than `most` bytes of it have come."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER)
    request = h11.Request(
        method=b"GET",
        target=path.encode("ascii"),
        headers=[(b"host", address.authority.encode("idna")), (b"connection", b"close")],
    )
    status, body = 0, b""
    async with await _open(address, trust) as stream:
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        while not (status and len(body) >= most):
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(MAX_ANSWER)))
            elif isinstance(event, h11.ConnectionClosed):
                raise ValueError("closed without an answer")
    return status, body


async def _open(address: Address, trust: Trust) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream(address.host, address.port)
    if not address.secure:
        return stream
    name = trust.name or address.host
    # A bot that closes behind its answer need not say so: the answer's length is known.
    return trio.SSLStream(
        stream, toward_bots(trust.ca), server_hostname=name, https_compatible=True
    )
