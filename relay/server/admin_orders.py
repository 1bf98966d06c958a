"""What the administration changes: drains, and the configuration."""

from __future__ import annotations

__all__ = ["ORDER_HANDLERS"]

from collections.abc import Mapping

from relay.errors import ConfigError, Refusal
from relay.policy.drains import Order, parse_order
from relay.policy.routes import Route
from relay.server.admin import AdminHandler
from relay.server.exchange import Exchange
from relay.server.handing import restarting
from relay.server.replies import json_body
from relay.server.routing import Handler

# The longest name or URL with room for spaces; what is longer is no order.
MAX_ORDER = 4096


class OrderHandler(AdminHandler):
    """A route that changes something.

    Its orders are JSON and say so: a web page can send that here only after a preflight,
    which nobody answers with yes.
    """

    async def read_order(self) -> bytes:
        exchange = self._exchange
        kind = (exchange.head.value(b"content-type") or b"").partition(b";")[0]
        if kind.strip().lower() != b"application/json":
            raise Refusal(415, "send Content-Type: application/json", cause="not_json")
        return await exchange.read_body(MAX_ORDER)


class Drain(OrderHandler):
    """What drains; with POST something more, or something less."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._order: Order | None = None

    async def authenticate(self) -> None:
        await super().authenticate()
        if self._exchange.head.method == b"POST":
            self._order = parse_order(await self.read_order())

    async def resolve(self) -> None:
        """What is not there any more may be told to take sessions again all the same."""
        front, order = self._exchange.front, self._order
        if order is None or not order.on:
            return
        if order.agent is not None and order.agent not in front.catalog.agents:
            raise Refusal(404, "no agent has this name", cause="unknown_agent")
        if order.instance is not None and front.pool.gone(order.instance):
            raise Refusal(404, "no instance has this URL", cause="unknown_instance")

    async def relay(self) -> None:
        front = self._exchange.front
        drains, more = front.drains, {}
        if self._order is not None:
            if front.successor is not None:
                raise restarting()  # which has read the file already
            more = {"kept": await drains.order(self._order)}
        await self._exchange.reply(200, json_body({**drains.state.shown(), **more}))


class Reload(OrderHandler):
    """Follow the configuration file as it is now."""

    async def authenticate(self) -> None:
        await super().authenticate()
        await self.read_order()  # nothing is in it that matters

    async def relay(self) -> None:
        try:
            changed = await self._exchange.front.reload()
        except ConfigError as error:
            raise Refusal(409, str(error), cause="reload_refused") from None
        await self._exchange.reply(200, json_body({"changed": changed}))


ORDER_HANDLERS: Mapping[Route, type[Handler]] = {
    Route.ADMIN_DRAIN: Drain,
    Route.ADMIN_RELOAD: Reload,
}
