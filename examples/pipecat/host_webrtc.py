"""WebRTC offers for the one session that waits, where pipecat's `webrtc` extra is installed."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from loguru import logger

AVAILABLE = find_spec("aiortc") is not None
if AVAILABLE:
    from pipecat.transports.smallwebrtc.request_handler import (
        IceCandidate,
        SmallWebRTCPatchRequest,
        SmallWebRTCRequest,
        SmallWebRTCRequestHandler,
    )

# From POST /bot until the offer.
OFFER_TIMEOUT = 120.0


class Offers:
    """At most one connection: the one that the waiting session gets, and its renegotiations."""

    def __init__(self) -> None:
        self._handler = SmallWebRTCRequestHandler() if AVAILABLE else None
        self._waiting: asyncio.Future[Any] | None = None
        self._connection: Any = None
        self._one_at_a_time = asyncio.Lock()

    async def next_connection(self) -> Any:
        """Wait for an offer; its connection, or None when none came or somebody waits already."""
        if self._waiting is not None or self._connection is not None:
            logger.error("a session has the WebRTC connection or waits for it already")
            return None
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(self._waiting, OFFER_TIMEOUT)
        except TimeoutError:
            logger.error("no WebRTC offer within {} s", OFFER_TIMEOUT)
            return None
        finally:
            self._waiting = None

    async def offer(self, body: dict[str, Any]) -> JSONResponse:
        """Answer an offer of the connection there is, or the first one of a session that waits."""
        if self._handler is None:
            return refusal(501, "WebRTC needs pipecat-ai[webrtc], which is not installed here")
        async with self._one_at_a_time:
            try:
                request = SmallWebRTCRequest.from_dict(body)
            except TypeError as error:
                return refusal(400, f"not an offer: {error}")
            known = self._connection is not None and request.pc_id == self._connection.pc_id
            wanted = self._waiting is not None and not self._waiting.done()
            if not known and not wanted:
                return refusal(409, "no session waits for an offer, and this is not its connection")
            try:
                return JSONResponse(await self._handler.handle_web_request(request, self._keep))
            except Exception:
                logger.exception("an offer that cannot be answered")
                return refusal(400, "the offer cannot be answered")

    async def _keep(self, connection: Any) -> None:
        """A new connection: the waiting session takes it."""
        if self._waiting is not None and not self._waiting.done():
            self._connection = connection
            self._waiting.set_result(connection)

    async def candidates(self, body: dict[str, Any]) -> JSONResponse:
        """Add ICE candidates to the connection."""
        if self._handler is None:
            return refusal(501, "WebRTC needs pipecat-ai[webrtc], which is not installed here")
        try:
            found = [IceCandidate(**each) for each in body["candidates"]]
            await self._handler.handle_patch_request(SmallWebRTCPatchRequest(body["pc_id"], found))
        except HTTPException as error:
            return refusal(error.status_code, str(error.detail))
        except (KeyError, TypeError, ValueError) as error:
            return refusal(400, f"not candidates: {error}")
        return JSONResponse({"status": "success"})

    async def close(self) -> None:
        """End the connection, if there is one: its session has ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()


def refusal(status: int, text: str) -> JSONResponse:
    """An error in the form that the front door uses, too."""
    return JSONResponse({"error": text, "code": str(status)}, status)
