"""Which paths there are on each listener, and who answers them."""

from __future__ import annotations

__all__ = ["ADMIN_ROUTES", "PUBLIC_ROUTES"]

from relay.policy.routes import ADMIN, PUBLIC, Route
from relay.server.admin import ADMIN_HANDLERS
from relay.server.admin_orders import ORDER_HANDLERS
from relay.server.admin_views import VIEW_HANDLERS
from relay.server.private_api import PRIVATE_HANDLERS
from relay.server.routing import Routes
from relay.server.session_websocket import session_api
from relay.server.start import Preflight, StartSession
from relay.server.stored_bodies import StoredBody
from relay.server.websocket import GenericWebSocket, ProviderWebSocket

PUBLIC_ROUTES = Routes(
    "public",
    PUBLIC,
    {
        Route.START: StartSession,
        Route.SESSION_API: session_api,
        **PRIVATE_HANDLERS,
        Route.BODY: StoredBody,
        Route.GENERIC_WEBSOCKET: GenericWebSocket,
        Route.PROVIDER_WEBSOCKET: ProviderWebSocket,
    },
    preflight=Preflight,
)
ADMIN_ROUTES = Routes("admin", ADMIN, {**ADMIN_HANDLERS, **VIEW_HANDLERS, **ORDER_HANDLERS})
