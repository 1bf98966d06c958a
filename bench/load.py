"""Paced calls: sends at an absolute schedule, verifies and times every echo.

Theory: message e of the whole run is due at begin + e * interval, call after
call in turn, so the calls are spread evenly over one period and never beat
together. Latency counts from the due time, not from when the message got out:
a target that stalls makes its own queue visible (no coordinated omission).
The price is that the generator's own lateness is in the figure too; it is
recorded beside it, and a run with too much of it is `saturated`.
"""

from __future__ import annotations

import argparse
import gc
import random
import select
import socket
import sys
import time
from collections.abc import Sequence

from bench import wire
from bench.client import Caller, Channel, Door, Refused, add_door_options, door_from
from bench.ledger import Ledger
from bench.origin import raise_descriptor_limit
from bench.scenarios import Calls
from bench.stats import Histogram
from bench.steps import Steps, run
from bench.talk import Talk
from bench.ticker import NANOSECONDS, Ticker

__all__ = ["Generator", "main"]

SCRATCH = 256 << 10
OPENERS = 4  # calls being set up at once: quick, and no storm
OPENING_SECONDS = 60.0  # + per call; the relay may hold an upgrade for 30 s
OPENING_SECONDS_PER_CALL = 0.05
LEAD = 20_000_000  # ns between arming the schedule and its first message
DRAIN_SECONDS = 2.0  # for the last echoes; what is not back then is lost
BURST = 32  # late messages sent before echoes are looked at again
MAX_PENDING = 1 << 20  # bytes that a call may have unsent before it counts as broken
LATE = 5_000_000  # ns: a message sent later than this was not sent on time
LATE_SHARE = 0.01  # more late ones than this, and the run measures the generator
SEED = 7


class Call:
    """One WebSocket with its account; `cause` says why it broke, if it did."""

    __slots__ = ("cause", "held", "ledger", "pending", "sock")

    def __init__(self, sock: socket.socket, held: bytearray, ledger: Ledger) -> None:
        self.sock = sock
        self.held = held
        self.ledger = ledger
        self.pending = b""
        self.cause = ""


class Generator:
    """Sends and receives for all calls from one epoll."""

    def __init__(self, channels: Sequence[Channel], scenario: Calls) -> None:
        count = len(channels)
        self._interval = NANOSECONDS // (scenario.rate * count)
        self._begin = time.monotonic_ns() + LEAD
        self._unrecorded = round(scenario.warmup * scenario.rate)  # messages of each call
        self._messages = (round(scenario.seconds * scenario.rate) + self._unrecorded) * count
        self._header = wire.server_header(wire.BINARY, scenario.size)
        self._echo_size = len(self._header) + scenario.size
        period = self._interval * count
        self.calls = [
            Call(c.sock, c.held, Ledger(i, scenario.size, self._begin + i * self._interval, period))
            for i, c in enumerate(channels)
        ]
        self._by_fd = {call.sock.fileno(): call for call in self.calls}
        self._epoll = select.epoll()
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)
        self._scratch = bytearray(SCRATCH)
        self._keys = random.Random(SEED)
        self.latency, self.lateness = Histogram(), Histogram()
        self.late = 0
        self.last_echo = 0

    def run(self) -> None:
        """Send the whole schedule, then wait for the last echoes, bounded."""
        ticker = Ticker(self._begin, self._interval)
        self._epoll.register(ticker.fd, select.EPOLLIN)
        event, total, clock = 0, self._messages, time.monotonic_ns
        try:
            while event < total:
                behind = self._begin + event * self._interval <= clock()
                for fd, events in self._epoll.poll(0 if behind else -1):
                    if fd == ticker.fd:
                        ticker.clear()
                    else:
                        self._serve(fd, events)
                stop = min(total, event + BURST)
                while event < stop and self._begin + event * self._interval <= clock():
                    self._send(event)
                    event += 1
        finally:
            self._epoll.unregister(ticker.fd)
            ticker.close()
        self._drain(time.monotonic() + DRAIN_SECONDS)

    def _drain(self, deadline: float) -> None:
        while time.monotonic() < deadline and any(
            call.ledger.lost and not call.cause for call in self.calls
        ):
            for fd, events in self._epoll.poll(0.05):
                self._serve(fd, events)

    def _send(self, event: int) -> None:
        sequence, index = divmod(event, len(self.calls))
        call = self.calls[index]
        if call.cause:
            return
        ledger = call.ledger
        frame = wire.client_frame(wire.BINARY, ledger.message(sequence), self._keys.getrandbits(32))
        lateness = time.monotonic_ns() - ledger.due(sequence)
        ledger.sent = sequence + 1
        self._write(call, frame)
        if sequence >= self._unrecorded:
            self.lateness.record(lateness)
            self.late += lateness > LATE

    def _write(self, call: Call, data: bytes) -> None:
        if call.pending:
            call.pending += data
            if len(call.pending) > MAX_PENDING:
                self._break(call, "the target does not read")
            return
        try:
            sent = call.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(call, error.strerror or "send failed")
            return
        if sent < len(data):
            call.pending = data[sent:]
            self._epoll.modify(call.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _serve(self, fd: int, events: int) -> None:
        call = self._by_fd[fd]
        if events & select.EPOLLOUT and call.pending:
            data, call.pending = call.pending, b""
            self._epoll.modify(fd, select.EPOLLIN)
            self._write(call, data)
        if events & ~select.EPOLLOUT and not call.cause:
            self._receive(call)

    def _receive(self, call: Call) -> None:
        scratch = self._scratch
        try:
            size = call.sock.recv_into(scratch)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(call, error.strerror or "receive failed")
            return
        now = time.monotonic_ns()
        ledger = call.ledger
        # The common case: exactly the one echo that is expected.
        if (
            size == self._echo_size
            and not call.held
            and scratch.startswith(self._header + ledger.message(ledger.expected))
            and ledger.expected < ledger.sent
        ):
            self._record(ledger, ledger.accept_next(), now)
        elif not size:
            self._break(call, "closed by the target without a Close")
        else:
            call.held += memoryview(scratch)[:size]
            self._receive_frames(call, now)

    def _receive_frames(self, call: Call, now: int) -> None:
        held, position = call.held, 0
        try:
            while (found := wire.frame_at(held, position, len(held), masked=False)) is not None:
                first, _, body, position = found
                payload = bytes(held[body:position])
                if first == wire.PING:
                    key = self._keys.getrandbits(32)
                    self._write(call, wire.client_frame(wire.PONG, payload, key))
                elif first == wire.CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    self._break(call, f"Close {code} {payload[2:].decode(errors='replace')}")
                    return
                elif first != wire.PONG:
                    sequence = call.ledger.judge(payload)
                    if sequence is not None:
                        self._record(call.ledger, sequence, now)
        except wire.BadFrame as bad:
            self._break(call, str(bad))
            return
        del held[:position]

    def _record(self, ledger: Ledger, sequence: int, now: int) -> None:
        if sequence >= self._unrecorded:
            self.latency.record(now - ledger.due(sequence))
            self.last_echo = now

    def _break(self, call: Call, cause: str) -> None:
        if not call.cause:
            call.cause = cause
            del self._by_fd[call.sock.fileno()]
            self._epoll.unregister(call.sock.fileno())
            call.sock.close()

    def result(self) -> dict[str, object]:
        """The figures, ready for JSON; times in nanoseconds."""
        ledgers = [call.ledger for call in self.calls]
        causes = [call.cause for call in self.calls if call.cause]
        recorded_from = self.calls[0].ledger.due(self._unrecorded)
        elapsed = max(self.last_echo - recorded_from, 1) / NANOSECONDS
        late_share = self.late / max(self.lateness.count, 1)
        return {
            "calls": len(self.calls),
            "planned": self._messages,
            "sent": sum(ledger.sent for ledger in ledgers),
            "echoed": sum(ledger.intact for ledger in ledgers),
            "lost": sum(ledger.lost for ledger in ledgers),
            "reordered": sum(ledger.reordered for ledger in ledgers),
            "duplicated": sum(ledger.duplicated for ledger in ledgers),
            "changed": sum(ledger.changed for ledger in ledgers),
            "broken": len(causes),
            "causes": sorted(set(causes))[:10],
            "late_share": late_share,
            "saturated": late_share > LATE_SHARE,
            "per_second": self.latency.count / elapsed,
            "latency": self.latency.dump(),
            "lateness": self.lateness.dump(),
        }


def open_calls(door: Door, count: int, size: int) -> list[Channel]:
    """Set up every call and carry one message over each.

    Raises:
        Refused: any call could not be set up; the text says why.
    """
    channels: list[Channel] = []
    failures: list[str] = []
    left = iter(range(count))

    def opener(seed: int) -> Steps[None]:
        caller = Caller(door, seed)
        try:
            for _ in left:
                place, token = yield from caller.start()
                channel = yield from caller.attach(place, token)
                channels.append(channel)
                yield from caller.echo(channel, size)
        except (OSError, Refused, ValueError, KeyError, wire.BadFrame) as error:
            failures.append(str(error) or type(error).__name__)
        finally:
            caller.close()

    deadline = time.monotonic() + OPENING_SECONDS + OPENING_SECONDS_PER_CALL * count
    ended = run([opener(seed) for seed in range(OPENERS)], deadline)
    if failures or not ended:
        reason = failures[0] if failures else "no answer in time"
        raise Refused(f"{len(channels)} of {count} calls were set up, then: {reason}")
    return channels


def close_calls(calls: Sequence[Call], door: Door) -> None:
    """End every call that is left with a Close and its answer."""

    def closer(call: Call) -> Steps[None]:
        try:
            yield from Caller(door, SEED).hang_up(Channel(call.sock))
        except (OSError, Refused, wire.BadFrame):
            pass  # the figures are taken; how a call ends is not this scenario's subject

    run([closer(call) for call in calls if not call.cause], time.monotonic() + DRAIN_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once; prints the result as one JSON object. Status 1 when calls cannot be set up."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    add_door_options(parser)
    for name in ("calls", "rate", "size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("seconds", "warmup"):
        parser.add_argument(f"--{name}", type=float, required=True)
    options = parser.parse_args(arguments)
    scenario = Calls(
        "calls", "", options.calls, options.rate, options.size, options.seconds, options.warmup
    )
    raise_descriptor_limit()
    talk, door = Talk(options.held), door_from(options)
    try:
        channels = open_calls(door, scenario.calls, scenario.size)
    except Refused as refused:
        talk.say("failed", reason=str(refused))
        return 1
    talk.turn("ready")
    gc.collect()
    gc.disable()  # its pauses would be in the figures; nothing here makes cycles per message
    generator = Generator(channels, scenario)
    generator.run()
    talk.turn("done")
    close_calls(generator.calls, door)
    talk.say("result", **generator.result())
    return 0


if __name__ == "__main__":
    sys.exit(main())
