"""A bot as people write them: FastAPI on uvicorn, run with the interpreter of `.venv-clients`.

    python tests/clients/fastapi_bot.py

prints `listening on http://127.0.0.1:PORT` when it serves.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Header, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

PIECE = 64 * 1024

app = FastAPI()
calls: dict[str, WebSocket] = {}
contexts: dict[str, dict[str, Any]] = {}
heard: dict[str, asyncio.Event] = {}
offers: list[dict[str, Any]] = []
over: dict[str, asyncio.Event] = {}


class Speech(BaseModel):
    text: str


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ok"}


@app.websocket("/ws")
async def ws(call: WebSocket) -> None:
    """Echo, text as text and bytes as bytes."""
    await call.accept()
    session = call.headers["x-daily-session-id"]
    calls[session] = call
    try:
        while True:
            message = await call.receive()
            if message.get("text") is not None:
                await call.send_text(message["text"])
            elif message.get("bytes") is not None:
                await call.send_bytes(message["bytes"])
            else:
                return
    except WebSocketDisconnect:
        return
    finally:
        del calls[session]


@app.post("/bot")
async def bot(x_daily_session_id: str = Header()) -> dict[str, str]:
    """A session over HTTP lasts until it is told that it is over."""
    event = over[x_daily_session_id] = asyncio.Event()
    await event.wait()
    return {}


@app.post("/over")
async def is_over(x_daily_session_id: str = Header()) -> dict[str, str]:
    over[x_daily_session_id].set()
    return {}


@app.get("/status")
async def status(x_daily_session_id: str = Header()) -> dict[str, Any]:
    session = x_daily_session_id
    return {"session": session, "call": session in calls, "context": contexts.get(session, {})}


@app.post("/context")
async def context(values: dict[str, Any], x_daily_session_id: str = Header()) -> dict[str, Any]:
    contexts[x_daily_session_id] = contexts.get(x_daily_session_id, {}) | values
    return contexts[x_daily_session_id]


@app.post("/speak")
async def speak(speech: Speech, x_daily_session_id: str = Header()) -> dict[str, str]:
    await calls[x_daily_session_id].send_text(speech.text)
    return {"said": speech.text}


@app.post("/upload")
async def upload(file: UploadFile) -> dict[str, Any]:
    """A form with a file, as browsers send it."""
    digest, size = hashlib.sha256(), 0
    while piece := await file.read(PIECE):
        digest.update(piece)
        size += len(piece)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest()}


@app.put("/upload")
async def upload_stream(request: Request) -> dict[str, Any]:
    """A body of any framing, as it comes."""
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def made(seed: int, size: int) -> list[bytes]:
    """The same pieces for the same seed, here and in the test."""
    source = random.Random(seed)
    return [source.randbytes(min(PIECE, size - at)) for at in range(0, size, PIECE)]


@app.get("/download")
async def download(seed: int, size: int, framed: bool = True) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in made(seed, size):
            yield piece

    length = {"content-length": str(size)} if framed else {}
    return StreamingResponse(pieces(), headers=length, media_type="application/octet-stream")


@app.get("/events")
async def events(count: int, pause: float) -> StreamingResponse:
    """Events with a pause behind each."""

    async def lines() -> AsyncIterator[str]:
        for number in range(count):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(pause)

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/heard-events")
async def heard_events(count: int, x_daily_session_id: str = Header()) -> StreamingResponse:
    """Each event comes when the one before it was heard."""

    async def lines() -> AsyncIterator[str]:
        for number in range(count):
            event = heard[x_daily_session_id] = asyncio.Event()
            yield f"data: event {number}\n\n"
            await event.wait()

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.post("/heard", status_code=204)
async def hear(x_daily_session_id: str = Header()) -> Response:
    heard[x_daily_session_id].set()
    return Response(status_code=204)


@app.post("/api/offer")
async def offer(body: dict[str, Any]) -> dict[str, Any]:
    offers.append(body)
    return {"type": "answer", "sdp": body["sdp"][::-1], "pc_id": f"pc-{len(offers)}"}


@app.patch("/api/offer")
async def candidates(body: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "candidates": len(body["candidates"]), "pc_id": body["pc_id"]}


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
