"""`relay serve --demo`: a front door with the example bot behind it, and the commands to try it.

Everything is temporary: the bot is a child process, keys are made for this run, store
and runtime directory vanish at the end.
"""

from __future__ import annotations

__all__ = ["serve_demo"]

import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import trio

from relay.config import load
from relay.daemon import Daemon, run_to_end
from relay.errors import ConfigError
from relay.ops.log import configure

BIND = "127.0.0.1:8080"
ADMIN = "127.0.0.1:8081"
# The example bot can hold many sessions, so that the printed commands can be
# repeated; a real bot holds one.
SESSIONS = 100
BOT_START_TIMEOUT = 20.0
BOT_END_TIMEOUT = 3.0

CONFIG = """
[server]
bind = "{bind}"
admin_bind = "{admin}"

[store]
url = "sqlite:relay.db"

[organizations.demo]
public_keys = ["{public}"]
private_keys = ["{private}"]
token_keys = [{{ id = "demo", secret = "{secret}" }}]

[agents.echo]
organization = "demo"
instances = ["{bot}"]
sessions_per_instance = {sessions}
"""

BANNER = """
relay listens on {url}, with an echo bot behind it.

Start a session:
  curl -s -X POST {url}/v1/public/echo/start -H 'Authorization: Bearer {public}' \\
    -H 'Content-Type: application/json' -d '{{"transport": "websocket"}}'

Talk to the bot over WebSocket (audio frames for five seconds, round trips printed):
  {python} {client} {url}/v1/public/echo/start --key {public}

See the sessions, live and ended:
  {python} -m relay sessions list --state all --admin {admin}

Start one and stop it:
  SESSION=$(curl -s -X POST {url}/v1/public/echo/start -H 'Authorization: Bearer {public}' \\
    -d '{{"transport": "websocket"}}' | {python} -c 'import json, sys; print(json.load(sys.stdin)["sessionId"])')
  curl -s -X DELETE {url}/v1/agents/echo/sessions/$SESSION -H 'Authorization: Bearer {private}'

Ctrl-C ends everything. Log lines follow.
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one demonstration."""

    public: str
    private: str
    secret: str


def serve_demo() -> int:
    """Run the demonstration until a signal ends it; the exit code.

    Raises:
        ConfigError: the example bot does not start, or an address is in use.
    """
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        run_to_end(partial(_run, Path(folder)))
    return 0


async def _run(folder: Path) -> None:
    keys = Keys(
        f"pk_demo_{secrets.token_hex(8)}",
        f"sk_demo_{secrets.token_hex(8)}",
        secrets.token_urlsafe(32),
    )
    # The daemon takes signals itself once it runs; these are for the time before.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at, signals, nursery.cancel_scope)
            async with _echo_bot() as bot:
                await _serve(folder, keys, bot)
            nursery.cancel_scope.cancel()


async def _cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _serve(folder: Path, keys: Keys, bot: str) -> None:
    file = folder / "relay.toml"
    file.write_text(
        CONFIG.format(
            bind=BIND,
            admin=ADMIN,
            public=keys.public,
            private=keys.private,
            secret=keys.secret,
            bot=bot,
            sessions=SESSIONS,
        )
    )
    config = load(file, os.environ)
    log = configure(config.log_format, config.log_level, sys.stderr)
    await Daemon(config, log, lambda url, admin: _print_banner(keys, url, admin)).run()


def _print_banner(keys: Keys, url: str, admin: str) -> None:
    package = find_spec("relay_examples")
    client = Path(package.origin if package and package.origin else "").with_name("client.py")
    print(
        BANNER.format(
            url=url,
            admin=admin,
            public=keys.public,
            private=keys.private,
            python=_shown(Path(sys.executable)),
            client=_shown(client),
        ),
        flush=True,
    )


def _shown(path: Path) -> str:
    """A path as one would type it here: relative below this folder."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


@asynccontextmanager
async def _echo_bot() -> AsyncIterator[str]:
    """The example bot as a child process; its URL."""
    # A session of its own, so that a terminal's Ctrl-C reaches the daemon alone, which
    # ends the calls before the bot.
    options = ["--port", "0", "--sessions", str(SESSIONS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "relay_examples.echo_bot", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = ""
        with trio.move_on_after(BOT_START_TIMEOUT):
            await trio.lowlevel.wait_readable(process.stdout)
            line = process.stdout.readline().decode()  # "" when the bot has ended
        if not line.startswith("listening on "):
            raise ConfigError("the example bot did not start")
        yield line.removeprefix("listening on ").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(BOT_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
