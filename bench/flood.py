"""HTTP load beside calls: keep-alive connections that POST /start without pause."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench.client import Caller, Refused, add_door_options, door_from
from bench.origin import raise_descriptor_limit
from bench.steps import Steps, run
from bench.talk import Talk

__all__ = ["main"]

MAX_CONNECTIONS = 256
MAX_SECONDS = 700.0
# A door that refuses connections would otherwise be tried as fast as the loop runs.
MAX_FAILURES = 1_000
GRACE = 1.0  # seconds for the answers that are on their way at the end


def flooder(caller: Caller, end: float, answers: Counter[str]) -> Steps[None]:
    """POST until the end, counting answers by status, failures by their reason."""
    failures = 0
    while time.monotonic() < end and failures < MAX_FAILURES:
        try:
            status, _ = yield from caller.post_start()
            answers[str(status)] += 1
        except (OSError, Refused, ValueError) as error:
            failures += 1
            answers[str(error) or type(error).__name__] += 1
    caller.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once; prints the answers by status as one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    add_door_options(parser)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    door = door_from(options)
    if door.start_url is None:
        parser.error("a flood needs --start URL")
    if not 1 <= options.connections <= MAX_CONNECTIONS:
        parser.error(f"--connections is {options.connections}; expected 1 to {MAX_CONNECTIONS}")
    raise_descriptor_limit()
    talk = Talk(options.held)
    talk.turn("ready")
    begun = time.monotonic()
    end = begun + min(options.seconds, MAX_SECONDS)
    answers: Counter[str] = Counter()
    run((flooder(Caller(door, i), end, answers) for i in range(options.connections)), end + GRACE)
    per_second = answers.total() / (time.monotonic() - begun)
    talk.say("result", answers=dict(answers.most_common(20)), per_second=per_second)
    return 0


if __name__ == "__main__":
    sys.exit(main())
