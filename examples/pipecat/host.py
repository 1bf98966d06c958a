"""Serves a Pipecat bot in the shape of Pipecat Cloud's base image.

    python examples/pipecat/host.py path/to/bot.py --port 8080 [--host 127.0.0.1]

imports the file as module `bot`, which has `async def bot(args)`, and prints `listening on
http://127.0.0.1:8080` when it is ready. The port may come from $PORT; 0 picks a free one. The bot
may add routes to `app` of `pipecatcloud_system`; these are taken:

    WS    /ws?body=…   a session with WebSocketSessionArguments; closed when bot() returns
    POST  /bot         a session without WebSocket: a JSON object, answered `{}` when bot() ended
    POST  /api/offer   the WebRTC offer that a session of X-Daily-Transport-Type: webrtc waits for
    PATCH /api/offer   further ICE candidates
    GET   /readyz      200, or 503 while `readyz()` of the bot's module, if there is one, says no
    GET   /livez       200

The fields X-Daily-Session-Id, X-Daily-Room-Url, X-Daily-Room-Token and X-PCC-Max-Session-Seconds
are read. $PIPECAT_LOG_LEVEL is INFO by default. SIGTERM closes the listener, gives sessions
$SHUTDOWN_TIMEOUT seconds (5), cancels what is left and exits 0; the base image waits two hours.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import inspect
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import uvicorn
from fastapi import Request, WebSocket
from fastapi.responses import JSONResponse
from host_sessions import Sessions
from host_webrtc import Offers
from loguru import logger
from pipecatcloud.agent import (
    DailySessionArguments,
    PipecatSessionArguments,
    SessionArguments,
    SmallWebRTCSessionArguments,
    WebSocketSessionArguments,
)
from pipecatcloud_system import app
from starlette.websockets import WebSocketDisconnect, WebSocketState

# After the last session was cancelled: for answers and Close frames that are still to go out.
LAST_WORDS = 2


def prepare(path: Path) -> ModuleType:
    """The bot's file as module `bot`, not run yet; its directory goes first on the import path."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("bot", path)
    if spec is None or not path.is_file():
        sys.exit(f"{path} is not a Python file")
    module = sys.modules["bot"] = importlib.util.module_from_spec(spec)
    return module


def load(module: ModuleType) -> None:
    """Run the bot's file, which may add routes."""
    spec = module.__spec__
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module)
    if not inspect.iscoroutinefunction(getattr(module, "bot", None)):
        sys.exit(f"{spec.origin} has no `async def bot(args)`")


def decoded(body: str | None) -> Any:
    """The value in `?body=`, or None if there is none that can be read."""
    if not body:
        return None
    try:
        return json.loads(base64.b64decode(body))
    except ValueError as error:
        logger.warning("the parameter body is not base64 of JSON: {}", error)
        return None


def time_limit(headers: Mapping[str, str]) -> float | None:
    """Seconds after which a session over HTTP is cancelled, None without a limit."""
    text = headers.get("x-pcc-max-session-seconds")
    try:
        seconds = float(text) if text else 0.0
    except ValueError:
        logger.warning("X-PCC-Max-Session-Seconds is not a number: {}", text)
        return None
    return seconds if seconds > 0 else None


def add_sessions(sessions: Sessions, offers: Offers) -> None:
    """The two routes that hold a session."""

    @app.post("/bot")
    async def start(request: Request, body: dict[str, Any]) -> JSONResponse:
        args = await arguments(request.headers, body, offers)
        if args is not None:
            await sessions.run(args, time_limit(request.headers))
            await offers.close()
        return JSONResponse({})

    @app.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        args = WebSocketSessionArguments(
            websocket=websocket,
            session_id=websocket.headers.get("x-daily-session-id"),
            body=decoded(websocket.query_params.get("body")),
        )
        await close(websocket, 1000 if await sessions.run(args) else 1011)


async def arguments(
    headers: Mapping[str, str], body: dict[str, Any], offers: Offers
) -> SessionArguments | None:
    """What bot() gets for a POST /bot; None when no WebRTC offer came for it in time."""
    common: dict[str, Any] = {"session_id": headers.get("x-daily-session-id"), "body": body}
    if headers.get("x-daily-transport-type") == "webrtc":
        connection = await offers.next_connection()
        if connection is None:
            return None
        return SmallWebRTCSessionArguments(webrtc_connection=connection, **common)
    url, token = headers.get("x-daily-room-url"), headers.get("x-daily-room-token")
    if url and token:
        return DailySessionArguments(room_url=url, token=token, **common)
    return PipecatSessionArguments(**common)


async def close(websocket: WebSocket, code: int) -> None:
    """Send a Close unless the bot or the peer did: a server that just returns only cuts TCP."""
    states = (websocket.client_state, websocket.application_state)
    if states == (WebSocketState.CONNECTED, WebSocketState.CONNECTED):
        try:
            await websocket.close(code)
        except WebSocketDisconnect:
            pass  # the peer was faster


def add_offers(offers: Offers) -> None:
    """The routes of WebRTC."""

    @app.post("/api/offer")
    async def offer(body: dict[str, Any]) -> JSONResponse:
        return await offers.offer(body)

    @app.patch("/api/offer")
    async def candidates(body: dict[str, Any]) -> JSONResponse:
        return await offers.candidates(body)


def add_health(module: ModuleType) -> None:
    """The routes that tell how the process is."""

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        if await is_ready(module):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not ready"}, 503)

    @app.get("/livez")
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "ok"})


async def is_ready(module: ModuleType) -> bool:
    """What the bot's own `readyz()` says: a bool, or an object with `ready`; no without answer."""
    ask = getattr(module, "readyz", None)
    if ask is None:
        return True
    try:
        answer = ask()
        if inspect.isawaitable(answer):
            answer = await answer
        return bool(answer.get("ready") if isinstance(answer, Mapping) else answer)
    except Exception:
        logger.exception("readyz() of the bot failed")
        return False


class Server(uvicorn.Server):
    """A uvicorn server that tells its address and lets sessions end before it does."""

    def __init__(self, config: uvicorn.Config, sessions: Sessions, patience: float) -> None:
        super().__init__(config)
        self._sessions = sessions
        self._patience = patience

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._sessions.drain(self._patience)
        await super().shutdown(sockets)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve a Pipecat bot.")
    parser.add_argument("bot", type=Path, help="the bot's file, with `async def bot(args)`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    return parser.parse_args()


def ignore(_signal: int, _frame: FrameType | None) -> None:
    """uvicorn raises the signal that ended it once more at its end; that is no reason to fail."""


def main() -> None:
    given = options()
    logger.remove()
    level = os.environ.get("PIPECAT_LOG_LEVEL", "INFO").upper()
    # Tracebacks without the values of variables: a caller's data does not belong in a log.
    logger.add(sys.stderr, level=level, diagnose=False)
    module = prepare(given.bot.resolve())
    sessions, offers = Sessions(module), Offers()
    # Before the bot's routes, so that it cannot take one of these.
    add_sessions(sessions, offers)
    add_offers(offers)
    add_health(module)
    load(module)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ignore)
    config = uvicorn.Config(
        app,
        given.host,
        given.port,
        # The access log would have every `body`.
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=LAST_WORDS,
    )
    Server(config, sessions, float(os.environ.get("SHUTDOWN_TIMEOUT", "5"))).run()


if __name__ == "__main__":
    main()
