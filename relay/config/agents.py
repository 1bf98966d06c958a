"""Turns an agent's table into an `Agent`: its bots, how they are started, its routes."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.config.reading import Problems, describe, dotted, quoted, read_table, suggestion
from relay.config.secret import VARIABLE_NAME, Sources, check_secret
from relay.config.tables import AgentTable, IceServerTable
from relay.config.tls import check_trust
from relay.config.values import parse_dns_server, parse_instance
from relay.policy.catalog import AGENT_NAME, Agent, IceServer, Organization

__all__ = ["OF_COMMAND", "OF_NAMES", "bots_path", "check_agent", "check_instances_across"]

# The body of /start and every URL that is made from it stay far below max_target.
MAX_PATH = 1024
# What `frames` relays by default: images fit; a pump looks at nothing but headers.
FRAMES_MESSAGE = 16 * 1024 * 1024
# RFC 3986 §3.3, without the escapes that a route never needs.
ROUTE = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
# RFC 7064 and 7065: what a WebRTC client takes as a server's address.
ICE_URL = re.compile(r"(?:stuns?|turns?):[^\s\x00-\x1f?#]+(?:\?transport=(?:udp|tcp))?")
AGENT_FORM = "1 to 54 lower-case letters, digits and inner hyphens"
BOTS = 'a list such as ["http://127.0.0.1:7860"], or a command that starts them'
DEFAULT_MOST = Agent("", "").max_agents
# Keys that say how `command` is run; with `instances` they would have no meaning.
OF_COMMAND = (
    "cwd", "env", "min_agents", "max_agents", "spare_places", "idle_retirement", "reuse_process",
    "start_timeout", "stop_timeout", "log_size",
)  # fmt: skip
# Keys that say how names in `instances` are looked up.
OF_NAMES = ("dns_server", "dns_interval")


def check_agent(
    problems: Problems,
    name: str,
    raw: object,
    organizations: Mapping[str, Organization],
    sources: Sources,
) -> Agent:
    """One `[agents.NAME]`; only usable when no problem was added."""
    where = dotted("agents", name)
    if AGENT_NAME.fullmatch(name) is None:
        problems.add(where, f"not a name of an agent, expected {AGENT_FORM}")
    table = read_table(problems, where, raw, AgentTable)
    if isinstance(raw, dict):
        _check_agent(problems, where, table, organizations)
    trust = check_trust(problems, where, table, sources.base)
    launch = _launch(problems, where, table, sources) if table.command is not None else {}
    return Agent(
        name=name,
        organization=table.organization or "",
        instances=_instances(problems, f"{where}.instances", table),
        **_dns(problems, where, table),
        bot_ca=trust.ca,
        bot_name=trust.name,
        websocket_auth=table.websocket_auth,
        relay=table.relay,
        max_message_size=_max_message_size(table),
        sessions_per_instance=table.sessions_per_instance,
        max_sessions=table.max_sessions,
        max_session_duration=table.max_session_duration,
        idle_timeout=table.idle_timeout,
        ping_interval=table.ping_interval,
        attach_timeout=table.attach_timeout,
        ws_path=table.ws_path,
        ready_path=table.ready_path,
        settle_time=table.settle_time,
        stopping_time=table.stopping_time,
        ice_servers=_ice_servers(problems, f"{where}.ice_servers", table, sources),
        stored_bodies=table.stored_bodies,
        **launch,
    )


def bots_path(environ: Mapping[str, str]) -> str:
    """The PATH of launched bots: the interpreter that runs the daemon comes first."""
    return os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])


def _check_agent(
    problems: Problems, where: str, table: AgentTable, organizations: Mapping[str, Organization]
) -> None:
    name = table.organization
    if name is None:
        problems.add(f"{where}.organization", "not given, expected the name of an organization")
    elif name not in organizations:
        near = suggestion(name, organizations)
        problems.add(f"{where}.organization", f"no such organization: {quoted(name)}{near}")
    here = f"{where}.instances"
    wrong = problems.has(here) or problems.has(f"{where}.command")
    if table.instances is not None and table.command is not None:
        problems.add(here, "given together with command, expected exactly one of the two")
    elif not table.instances and table.command is None and not wrong:
        problems.add(here, f"no bot given, expected {BOTS}")
    for key in OF_COMMAND:
        if table.command is None and getattr(table, key) is not None:
            problems.add(f"{where}.{key}", "only for bots that are started with command")
    _check_route(problems, f"{where}.ws_path", table.ws_path)
    _check_route(problems, f"{where}.ready_path", table.ready_path)


def _max_message_size(table: AgentTable) -> int:
    """A tunnel does not look at messages unless it is asked to; who looks has a limit."""
    if table.max_message_size is not None:
        return table.max_message_size
    return FRAMES_MESSAGE if table.relay == "frames" else 0


def _instances(problems: Problems, where: str, table: AgentTable) -> tuple[str, ...]:
    urls = (
        problems.parse(f"{where}[{number}]", text, parse_instance)
        for number, text in enumerate(table.instances or ())
    )
    # A place is kept for what could not be read, so that numbers stay those of the file.
    return tuple(url or "" for url in urls)


def _dns(problems: Problems, where: str, table: AgentTable) -> dict[str, Any]:
    """The fields of an `Agent` that say how names are looked up."""
    given = {key: getattr(table, key) for key in OF_NAMES if getattr(table, key) is not None}
    # What could not be parsed has a line of its own.
    if not any(entry.lower().startswith("dns+") for entry in table.instances or ()):
        for key in given:
            problems.add(f"{where}.{key}", "only for instances that are found through DNS")
    if table.dns_server is not None:
        here = f"{where}.dns_server"
        given["dns_server"] = problems.parse(here, table.dns_server, parse_dns_server)
    return given


def check_instances_across(problems: Problems, agents: Mapping[str, Agent]) -> None:
    """One bot is listed once: two agents would give it two sessions at a time."""
    owners: dict[str, str] = {}
    for name, agent in agents.items():
        for number, url in enumerate(agent.instances):
            here = f"{dotted('agents', name)}.instances[{number}]"
            first = owners.setdefault(url, here) if url else here
            if first != here:
                problems.add(here, f"the same bot as {first}, expected each bot once")


def _check_route(problems: Problems, where: str, route: str) -> None:
    if ROUTE.fullmatch(route) is None or len(route) > MAX_PATH:
        problems.add(
            where, f'found {describe(route)}, expected a path such as "/ws", without query'
        )


def _launch(problems: Problems, where: str, table: AgentTable, sources: Sources) -> dict[str, Any]:
    """The fields of an `Agent` that say how `command` is run."""
    command, cwd = table.command or (), sources.base / (table.cwd or "")
    if not cwd.is_dir():
        problems.add(f"{where}.cwd", f"no such directory: {quoted(str(cwd))}")
    else:
        path = (table.env or {}).get("PATH", bots_path(sources.environ))
        _check_command(problems, f"{where}.command", command, cwd, path)
    env = table.env or {}
    for name, value in env.items():
        if VARIABLE_NAME.fullmatch(name) is None or "\0" in value:
            problems.add(dotted(f"{where}.env", name), "expected the name of a variable and a text")
    if table.sessions_per_instance > 1 and not table.reuse_process:
        problems.add(
            f"{where}.sessions_per_instance",
            "more than 1 with a process for each session, expected reuse_process = true with it",
        )
    given = {key: getattr(table, key) for key in OF_COMMAND if getattr(table, key) is not None}
    # Who wants bots to be there wants them for callers who have not called yet.
    given.setdefault("spare_places", table.min_agents or 0)
    _check_pool(problems, where, table)
    return given | {"command": command, "cwd": str(cwd), "env": tuple(env.items())}


def _check_pool(problems: Problems, where: str, table: AgentTable) -> None:
    """Whether the numbers of bots can be."""
    most = DEFAULT_MOST if table.max_agents is None else table.max_agents
    least, spare = table.min_agents or 0, table.spare_places or 0
    if least > most:
        problems.add(f"{where}.min_agents", f"found {least}, expected at most max_agents, {most}")
    places = most * table.sessions_per_instance
    if spare > places:
        text = f"found {spare}, expected at most the places of max_agents bots, {places}"
        problems.add(f"{where}.spare_places", text)


def _check_command(
    problems: Problems, where: str, command: tuple[str, ...], cwd: Path, path: str
) -> None:
    if not command or not all(command) or any("\0" in word for word in command):
        problems.add(where, 'expected a program and its arguments, such as ["python", "bot.py"]')
        return
    # A path is relative to cwd, a name is looked for as it will be when the bot is started.
    program = str(cwd / command[0]) if "/" in command[0] else command[0]
    if shutil.which(program, path=path) is None:
        kind = "a program that can be run" if "/" in command[0] else "a program on the PATH"
        problems.add(f"{where}[0]", f"found {quoted(command[0])}, expected {kind}")


def _ice_servers(
    problems: Problems, where: str, table: AgentTable, sources: Sources
) -> tuple[IceServer, ...]:
    servers = []
    for number, raw in enumerate(table.ice_servers):
        here = f"{where}[{number}]"
        item = read_table(problems, here, raw, IceServerTable)
        if not item.urls and not problems.has(f"{here}.urls"):
            problems.add(f"{here}.urls", 'not given, expected a list such as ["stun:host:3478"]')
        for place, url in enumerate(item.urls):
            if ICE_URL.fullmatch(url) is None:
                expected = 'expected a text such as "turn:host:3478?transport=udp"'
                problems.add(f"{here}.urls[{place}]", f"found {describe(url)}, {expected}")
        credential = check_secret(
            problems,
            f"{here}.credential",
            sources,
            text=item.credential,
            variable=item.credential_env,
            file=item.credential_file,
        )
        text = None if credential is None else credential.decode("utf-8", "replace")
        servers.append(IceServer(item.urls, item.username, text))
    return tuple(servers)
