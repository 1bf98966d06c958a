"""What the administration shows of the node: status, metrics, configuration, the console."""

from __future__ import annotations

__all__ = ["VIEW_HANDLERS"]

from collections.abc import Mapping

import msgspec

from relay.errors import Refusal
from relay.policy.routes import Route
from relay.server.admin import AdminHandler
from relay.server.replies import Fields, json_body
from relay.server.routing import Handler
from relay.server.status import MAX_CALLS, node_status

TEXT = b"text/plain; charset=utf-8"
# Prometheus's text format, version 0.0.4.
EXPOSITION = b"text/plain; version=0.0.4; charset=utf-8"
# The page loads nothing from elsewhere and nothing may frame it.
CONSOLE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class View(AdminHandler):
    """A page that is no JSON."""

    async def show(self, kind: bytes, body: bytes, more: Fields = ()) -> None:
        fields = [(b"content-type", kind), (b"cache-control", b"no-store"), *more]
        await self._exchange.reply(200, body, fields, passed=True)


class Status(AdminHandler):
    """The node at this moment, or one member of that: `/status`, `/status/pumps`."""

    async def relay(self) -> None:
        exchange = self._exchange
        part = exchange.names.get("part")
        wants_calls = part in (None, "calls")
        status = await node_status(exchange.front, MAX_CALLS if wants_calls else 0)
        if part is None:
            await exchange.reply(200, json_body(status))
            return
        members = msgspec.to_builtins(status)
        if part not in members:
            known = ", ".join(members)
            raise Refusal(404, f"the status has no such part, only {known}", cause="no_such_part")
        await exchange.reply(200, json_body({part: members[part]}))


class MetricsView(View):
    """Everything for Prometheus."""

    any_host = True

    async def relay(self) -> None:
        front = self._exchange.front
        await self.show(EXPOSITION, front.figures.render(await node_status(front)))


class ConfigView(View):
    """The configuration in force, secrets masked."""

    async def relay(self) -> None:
        await self.show(TEXT, self._exchange.front.rules.describe().encode())


class Console(View):
    """The console's page and its two files; they hold no data, so they need no token."""

    async def authenticate(self) -> None:
        """Nothing is asked: a browser must be able to ask its user for the token."""

    async def relay(self) -> None:
        exchange = self._exchange
        name = exchange.names.get("file", "")
        if exchange.match is not None and exchange.match.route is Route.ADMIN_ROOT:
            await exchange.reply(302, None, [(b"location", b"/console/")], passed=True)
            return
        found = exchange.front.console.get(name)
        if found is None:
            raise Refusal(404, "the console has no such file", cause="no_such_path")
        kind, body = found
        safe = (b"content-security-policy", CONSOLE_POLICY), (b"x-content-type-options", b"nosniff")
        await self.show(kind, body, safe)


VIEW_HANDLERS: Mapping[Route, type[Handler]] = {
    Route.ADMIN_STATUS: Status,
    Route.ADMIN_METRICS: MetricsView,
    Route.ADMIN_CONFIG: ConfigView,
    Route.ADMIN_CONSOLE: Console,
    Route.ADMIN_ROOT: Console,
}
