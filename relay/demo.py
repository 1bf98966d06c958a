"""`relay serve --demo`: a front door with example bots behind it, and the commands to try it.

Everything is temporary: a bot is started for each call, keys are made for this run,
store and runtime directory vanish at the end.
"""

from __future__ import annotations

__all__ = ["serve_demo"]

import os
import secrets
import shlex
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from relay.config import load
from relay.daemon import Daemon
from relay.endings import run_to_end
from relay.ops.log import Log

BIND = "127.0.0.1:8080"
ADMIN = "127.0.0.1:8081"
# The printed commands may be repeated quickly, and each /start reserves a place.
MAX_BOTS = 100

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
command = ["python", "-m", "relay_examples.echo_bot", "--port", "{{port}}"]
max_agents = {most}
"""

BANNER = """
relay listens on {url}, and starts an echo bot for each call.

Start a session:
  curl -s -X POST {url}/v1/public/echo/start -H 'Authorization: Bearer {public}' \\
    -H 'Content-Type: application/json' -d '{{"transport": "websocket"}}'

Talk to the bot over WebSocket (audio frames for five seconds, round trips printed{needs}):
  {python} {client} {url}/v1/public/echo/start --key {public}

See the sessions, live and ended, in a browser at {admin}/ or here:
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
    """Run the demonstration until a signal ends it; the exit code."""
    keys = Keys(
        f"pk_demo_{secrets.token_hex(8)}",
        f"sk_demo_{secrets.token_hex(8)}",
        secrets.token_urlsafe(32),
    )
    # The daemon takes signals itself once it runs. One that comes before is kept for it: an
    # exception in the midst of its start would leave things behind.
    early: list[int] = []
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda number, _frame: early.append(number))

    def ready(url: str, admin: str) -> None:
        if early:
            signal.raise_signal(early[0])
        else:
            _print_banner(keys, url, admin)

    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        file = Path(folder) / "relay.toml"
        file.write_text(
            CONFIG.format(
                bind=_free(BIND),
                admin=_free(ADMIN),
                public=keys.public,
                private=keys.private,
                secret=keys.secret,
                most=MAX_BOTS,
            )
        )
        config = load(file, os.environ)
        log = Log(config.log_format, config.log_level, sys.stderr)
        run_to_end(Daemon(config, log, ready).run)
    return 0


def _free(address: str) -> str:
    """An address, or another port of its host where somebody else has that one."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError:
        return f"{host}:0"
    return address


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
            needs="" if find_spec("websockets") else "; first: pip install websockets",
        ),
        flush=True,
    )


def _shown(path: Path) -> str:
    """A path as one would type it here: relative below this folder."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
