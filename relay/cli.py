"""The `relay` command: serve, check, make keys and tokens, look at and order a daemon.

Exit status: 0 clean, 1 something failed at run time, 2 a configuration or a
command line that cannot be used. Errors are lines on stderr that begin with
`relay: `; results go to stdout. An interrupt ends a command cleanly.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import secrets
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from relay import __version__, cli_orders, cli_sessions, cli_upgrade, cli_views
from relay.config import DEFAULT_FILE, Config, effective, load, suggestion, websocket_url
from relay.errors import ConfigError, RelayError
from relay.policy import tokens

__all__ = ["main"]

CLEAN = 0
FAILED = 1
USAGE = 2

# A day: a token is for one call that is about to begin.
MAX_TTL = 86_400
# 192 bits for an API key, 256 for a token key, beyond any search.
API_KEY_BYTES = 24
TOKEN_KEY_BYTES = 32
NONCE_BYTES = 12
# Tokens in arguments can be seen by other users of the machine; `-` reads one from stdin.
FROM_STDIN = "-"


class Parser(argparse.ArgumentParser):
    """Reports errors of usage in the form of all other errors."""

    def error(self, message: str) -> NoReturn:
        report(f"{message}\ntry: {self.prog} --help")
        raise SystemExit(USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: the arguments without the program's name; those of the process when None.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without UTF-8 shows an escape instead of ending the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = parser().parse_args(argv)
        status: int = arguments.run(arguments, os.environ)
        sys.stdout.flush()
        return status
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else USAGE
    except KeyboardInterrupt:
        return CLEAN
    except ConfigError as error:
        report(str(error))
        return USAGE
    except RelayError as error:
        report(str(error))
        return FAILED
    except BrokenPipeError:
        # The reader of our output left; the interpreter's own flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        report(str(error))
        return FAILED


def report(text: str) -> None:
    """Writes each line of a text to stderr as an error line."""
    for line in text.splitlines():
        print(f"relay: {line}", file=sys.stderr)


def parser() -> Parser:
    """The command line: one subcommand for each thing to do."""
    root = Parser(prog="relay", description="The open front door for real-time voice bots.")
    root.add_argument("--version", action="version", version=_version())
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the daemon")
    choice = serve.add_mutually_exclusive_group()
    _add_config(choice)
    choice.add_argument(
        "--demo", action="store_true", help="run with the example bot and a temporary store"
    )
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="judge a configuration and show it, secrets masked")
    _add_config(check)
    check.set_defaults(run=_check)

    key = commands.add_parser("key", help="make keys").add_subparsers(metavar="new", required=True)
    new = key.add_parser("new", help="print new keys as lines of the configuration")
    new.set_defaults(run=_key_new)

    _add_token(commands.add_parser("token", help="make and read one-time tokens"))
    sessions = commands.add_parser("sessions", help="list, show and stop sessions of a daemon")
    cli_sessions.add_arguments(sessions, _add_config)
    cli_views.add_arguments(
        commands.add_parser("agents", help="agents of a daemon, and their instances"),
        commands.add_parser("top", help="live calls of a daemon, again and again"),
        _add_config,
    )
    cli_orders.add_arguments(
        commands.add_parser("drain", help="take no new sessions: a node, an agent, an instance"),
        commands.add_parser("reload", help="let a daemon follow its changed configuration"),
        _add_config,
    )
    cli_upgrade.add_arguments(
        commands.add_parser("upgrade", help="replace a running daemon's process in place"),
        _add_config,
    )
    return root


def _version() -> str:
    """The version, and whether pumps run compiled (docs/operations.md, "A compiled pump")."""
    pump = importlib.util.find_spec("relay.pump.pump")
    source = pump is None or str(pump.origin).endswith(".py")
    return f"relay {__version__}" if source else f"relay {__version__}, pump compiled"


def _add_token(token: argparse.ArgumentParser) -> None:
    actions = token.add_subparsers(metavar="mint|inspect", required=True)
    mint = actions.add_parser("mint", help="print a token, its wsUrl and its session as JSON")
    mint.add_argument("agent", metavar="AGENT")
    mint.add_argument(
        "--ttl", type=_ttl, default=tokens.TOKEN_TTL, metavar="SECONDS", help="default: %(default)s"
    )
    mint.add_argument(
        "--session", type=cli_sessions.session_id, metavar="UUID", help="default: new"
    )
    _add_config(mint)
    mint.set_defaults(run=_token_mint)

    inspect = actions.add_parser("inspect", help="print what a token says as JSON")
    inspect.add_argument("token", metavar="TOKEN", help="the token, or - to read it from stdin")
    inspect.add_argument(
        "--config", type=Path, metavar="FILE", help="verify the signature with the keys in FILE"
    )
    inspect.set_defaults(run=_token_inspect)


def _add_config(target: argparse._ActionsContainer) -> None:
    target.add_argument("--config", type=Path, metavar="FILE", help=f"default: ./{DEFAULT_FILE}")


def _ttl(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_TTL):
        raise argparse.ArgumentTypeError(f"expected seconds from 1 to {MAX_TTL}")
    return int(text)


def _load(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    return load(arguments.config or DEFAULT_FILE, environ)


def _serve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if not arguments.demo and arguments.config is None and not DEFAULT_FILE.exists():
        raise ConfigError(
            f"no {DEFAULT_FILE} in this directory; give one with --config FILE,"
            " or try the daemon with --demo"
        )
    # Imported here, since no other command needs the daemon and its event loop.
    if arguments.demo:
        from relay.demo import serve_demo

        return serve_demo()
    from relay.daemon import serve

    return serve(partial(_load, arguments, environ), environ)


def _check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print(effective(_load(arguments, environ)))
    return CLEAN


def _key_new(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    public = f"pk_{secrets.token_urlsafe(API_KEY_BYTES)}"
    private = f"sk_{secrets.token_urlsafe(API_KEY_BYTES)}"
    secret = secrets.token_urlsafe(TOKEN_KEY_BYTES)
    print("# For [organizations.NAME]: callers get the public key, the rest stays here.")
    print(f'public_keys = ["{public}"]')
    print(f'private_keys = ["{private}"]')
    print(f'token_keys = [{{ id = "{time.strftime("%Y-%m-%d")}", secret = "{secret}" }}]')
    return CLEAN


def _token_mint(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = _load(arguments, environ)
    agent = config.catalog.agents.get(arguments.agent)
    if agent is None:
        near = suggestion(arguments.agent, config.catalog.agents)
        raise ConfigError(f"no agent {json.dumps(arguments.agent)} in the configuration{near}")
    if not config.public_url:
        raise ConfigError("server.public_url: not given, expected it since bind has port 0")
    key = config.catalog.organization_of(agent).token_keys[0]
    claims = tokens.Claims(
        service_host=agent.service_host,
        session_id=arguments.session or str(uuid.uuid4()),
        expires=int(time.time()) + arguments.ttl,
        nonce=secrets.token_urlsafe(NONCE_BYTES),
        key_id=key.id,
    )
    answer = {
        "token": tokens.mint(claims, key),
        "wsUrl": websocket_url(config.public_url, agent.service_host),
        "sessionId": claims.session_id,
    }
    print(json.dumps(answer, indent=2))
    return CLEAN


def _token_inspect(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    token = arguments.token
    if token == FROM_STDIN:
        token = sys.stdin.readline(tokens.MAX_TOKEN + 2).strip()
    found = tokens.inspect(token)
    found["expired"] = int(str(found["expires"])) <= time.time()
    if arguments.config is not None:
        found["signature"] = _signature(token, found, load(arguments.config, environ))
    print(json.dumps(found, indent=2))
    return CLEAN


def _signature(token: str, found: Mapping[str, object], config: Config) -> str:
    """Whether the keys of a configuration made a token, expired or not, in a few words."""
    service_host = str(found["service_host"])
    agent = config.catalog.by_service_host(service_host)
    if agent is None:
        return f"not verified: {service_host} is not in the configuration"
    keys = config.catalog.organization_of(agent).token_keys
    try:
        # Before the epoch nothing has expired, so that only the signature decides.
        tokens.verify(token, keys, service_host, -1)
    except RelayError as refusal:
        return f"wrong: {refusal}"
    return "right"
