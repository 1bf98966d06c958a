"""The effective configuration as text for people: TOML form, defaults filled in, secrets masked.

Law: no more than the first five characters of an API key and nothing but the
length of any other secret is ever written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

from relay.config.agents import OF_COMMAND, OF_NAMES
from relay.config.model import Config
from relay.config.reading import dotted
from relay.policy.catalog import Agent, DnsName, Limits, Organization, TraceReceiver
from relay.tls import ServerTls, day

__all__ = ["effective", "toml_value"]

# The prefix and two characters tell keys apart and give nothing away.
SHOWN_OF_KEY = 5


def effective(config: Config) -> str:
    """Every setting with the value in force, one table after the other."""
    catalog = config.catalog
    tables = [_server(config), _limits(config.limits), _store(config)]
    if config.traces is not None:
        tables.append(_traces(config.traces))
    if config.tls is not None:
        tables.insert(1, _tls(config.tls))
    tables += [_organization(organization) for organization in catalog.organizations.values()]
    tables += [_agent(agent) for agent in catalog.agents.values()]
    return "\n\n".join("\n".join(table) for table in tables)


def toml_value(value: object) -> str:
    """A value in TOML form; whole durations without a fraction, None as a comment."""
    if value is None:
        return "# derived"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, int):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False)


def _server(config: Config) -> Iterator[str]:
    token = config.admin_token
    yield "[server]"
    yield _line("bind", tuple(str(bind) for bind in config.binds))
    yield _line("admin_bind", str(config.admin_bind))
    yield f"admin_token = {'# none' if token is None else f'({len(token)} characters)'}"
    yield _line("public_url", config.public_url or None)
    yield _line("pumps", config.pumps)
    yield _line("runtime_dir", str(config.runtime_dir))
    yield _line("cors_origins", config.catalog.cors_origins)
    yield _line("trusted_proxies", tuple(str(each) for each in config.trusted_proxies))
    yield _line("proxy_protocol", tuple(str(each) for each in config.proxy_protocol))
    yield _line("log_level", config.log_level)
    yield _line("log_format", config.log_format)


def _tls(tls: ServerTls) -> Iterator[str]:
    yield "[tls]"
    for each in tls.certificates:
        yield f"# {each.file} is for {', '.join(each.names) or 'nobody'}, until {day(each.expires)}"
    shown = ", ".join(
        f"{{ certificate = {toml_value(each.file)}, key = {toml_value(each.key)} }}"
        for each in tls.certificates
    )
    yield f"certificates = [{shown}]"
    if tls.client_ca:
        yield _line("client_ca", tls.client_ca)
        yield _line("client_certificates", tls.clients)


def _limits(limits: Limits) -> Iterator[str]:
    yield "[limits]"
    for name in limits.__struct_fields__:
        yield _line(name, getattr(limits, name))


def _store(config: Config) -> Iterator[str]:
    yield "[store]"
    yield _line("url", config.store_url)


def _traces(traces: TraceReceiver) -> Iterator[str]:
    yield "[traces]"
    # Paths and queries of such addresses may hold a key.
    host = urlsplit(traces.endpoint)
    yield f"endpoint = {toml_value(f'{host.scheme}://{host.netloc}/…')}"
    yield _line("ratio", traces.ratio)
    yield _line("service_name", traces.service_name)


def _organization(organization: Organization) -> Iterator[str]:
    yield f"[{dotted('organizations', organization.name)}]"
    for name in ("public_keys", "private_keys"):
        keys: tuple[str, ...] = getattr(organization, name)
        yield _line(name, tuple(f"{key[:SHOWN_OF_KEY]}…" for key in keys))
    keys_of_tokens = ", ".join(
        f"{{ id = {toml_value(key.id)}, secret = ({len(key.secret)} bytes) }}"
        for key in organization.token_keys
    )
    yield f"token_keys = [{keys_of_tokens}]"
    yield _line("max_sessions", organization.max_sessions)
    hook = organization.webhook
    if hook is not None:
        # Paths and queries of such addresses often hold a key.
        host = urlsplit(hook.url)
        yield f"webhook_url = {toml_value(f'{host.scheme}://{host.netloc}/…')}"
        yield f"webhook_secret = ({len(hook.secret)} bytes)"


def _agent(agent: Agent) -> Iterator[str]:
    yield f"[{dotted('agents', agent.name)}]"
    # Of the two ways to have bots, the one in force and what belongs to it.
    other = {"instances", *OF_NAMES} if agent.command else {"command", *OF_COMMAND}
    if not any(map(DnsName.of, agent.instances)):
        other.update(OF_NAMES)
    if not agent.secure:
        other.update(("bot_ca", "bot_name"))
    for name in agent.__struct_fields__:
        if name == "env" and agent.command:
            values = ", ".join(
                f"{dotted('', key)} = ({len(text)} characters)" for key, text in agent.env
            )
            yield f"env = {{ {values} }}" if values else "env = {}"
        elif name == "bot_ca" and agent.bot_ca:
            yield f"bot_ca = ({agent.bot_ca.count('BEGIN CERTIFICATE')} certificates)"
        elif name == "ice_servers":
            yield from _ice_servers(agent)
        elif name in ("dns_server", "bot_ca", "bot_name") and name not in other:
            yield _line(name, getattr(agent, name) or None)
        elif name != "name" and name not in other:
            yield _line(name, getattr(agent, name))


def _ice_servers(agent: Agent) -> Iterator[str]:
    servers = []
    for server in agent.ice_servers:
        parts = [f"urls = {toml_value(server.urls)}"]
        if server.username is not None:
            parts.append(f"username = {toml_value(server.username)}")
        if server.credential is not None:
            parts.append(f"credential = ({len(server.credential)} characters)")
        servers.append(f"{{ {', '.join(parts)} }}")
    yield f"ice_servers = [{', '.join(servers)}]"


def _line(name: str, value: object) -> str:
    return f"{name} = {toml_value(value)}"
