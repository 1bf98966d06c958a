"""A Pipecat bot that echoes, without outside services, and shows what the Session API can do.

    python examples/pipecat/host.py examples/pipecat/bot.py     in Pipecat Cloud's shape
    python examples/pipecat/bot.py -t websocket                 in Pipecat's development runner

On a WebSocket, binary messages are Pipecat's protobuf frames: audio of 16 kHz mono comes back
byte for byte, in frames of 10 ms. Text messages are plain text and come back as such. A session
without WebSocket (POST /bot) lasts until it is cancelled or finished.

    GET  /status    {"session_id", "body", "message_count", "user_name"}
    POST /context   {"user_name": text, "preferences": {…}} becomes a message in the bot's context
    POST /speak     {"message": text} is said: a tone, and the text as a message
    POST /finish    ends the session
"""

from __future__ import annotations

import math
import struct
from typing import Any

from fastapi.responses import JSONResponse
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMMessagesAppendFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    TextFrame,
    TTSSpeakFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments, WebSocketRunnerArguments
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner
from pydantic import BaseModel

if __name__ == "__main__":
    from pipecat.runner.run import app, main
else:
    from pipecatcloud_system import app

SAMPLE_RATE = 16000
TONE_HZ, TONE_SECONDS, TONE_PEAK = 440, 0.2, 8000

# One session per process, so module-level state is this session's state.
pipeline_task: PipelineWorker | None = None
session_data: dict[str, Any] = {}


def reset(session_id: str | None, body: Any) -> None:
    """Begin a session's data afresh: a process may have had another session before."""
    session_data.update(session_id=session_id, body=body, messages=[], user_name=None)


reset(None, None)


# --- routes of the Session API ---


class ContextUpdate(BaseModel):
    user_name: str
    preferences: dict[str, Any]


class SpeakRequest(BaseModel):
    message: str


def nobody() -> JSONResponse:
    return JSONResponse({"error": "no active pipeline"}, 503)


@app.get("/status")
async def get_status() -> Any:
    return {
        "session_id": session_data["session_id"],
        "body": session_data["body"],
        "message_count": len(session_data["messages"]),
        "user_name": session_data["user_name"],
    }


@app.post("/context")
async def update_context(update: ContextUpdate) -> Any:
    if pipeline_task is None:
        return nobody()
    session_data["user_name"] = update.user_name
    about = f"The user is called {update.user_name} and prefers {update.preferences}."
    message = {"role": "system", "content": about}
    await pipeline_task.queue_frame(LLMMessagesAppendFrame(messages=[message], run_llm=False))
    return {"status": "context updated", "user_name": update.user_name}


@app.post("/speak")
async def trigger_speech(request: SpeakRequest) -> Any:
    if pipeline_task is None:
        return nobody()
    await pipeline_task.queue_frame(TTSSpeakFrame(text=request.message))
    return {"queued": True, "message": request.message}


@app.post("/finish")
async def finish() -> Any:
    if pipeline_task is None:
        return nobody()
    await pipeline_task.queue_frame(EndFrame())
    return {"status": "finishing"}


# --- the pipeline ---


class TextOrProtobuf(ProtobufFrameSerializer):
    """Plain text in text messages, protobuf in binary ones.

    A message whose value is a text goes out as the client last spoke: as a text message, or
    as the server-message of Pipecat's clients.
    """

    def __init__(self) -> None:
        super().__init__()
        self._speaks_text = False

    async def deserialize(self, data: str | bytes) -> Frame | None:
        self._speaks_text = isinstance(data, str)
        if isinstance(data, str):
            return TextFrame(text=data)
        return await super().deserialize(data)

    async def serialize(self, frame: Frame) -> str | bytes | None:
        if isinstance(frame, OutputTransportMessageFrame) and isinstance(frame.message, str):
            if self._speaks_text:
                return frame.message
            message = {"label": "rtvi-ai", "type": "server-message", "data": frame.message}
            return await super().serialize(OutputTransportMessageFrame(message=message))
        return await super().serialize(frame)


class Echo(FrameProcessor):
    """In the place of speech recognition, model and speech synthesis."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case InputAudioRawFrame():
                await self._play(frame.audio, frame.sample_rate, frame.num_channels)
            case TextFrame():
                await self.push_frame(OutputTransportMessageFrame(message=frame.text))
            case LLMMessagesAppendFrame():
                session_data["messages"].extend(frame.messages)
            case TTSSpeakFrame():
                await self.push_frame(OutputTransportMessageFrame(message=frame.text))
                await self._play(tone(), SAMPLE_RATE, 1)
            case _:
                await self.push_frame(frame, direction)

    async def _play(self, audio: bytes, rate: int, channels: int) -> None:
        # Not as TTSAudioRawFrame: behind speech the transport pads or drops what fills no frame.
        await self.push_frame(OutputAudioRawFrame(audio, rate, channels))


def tone() -> bytes:
    """A short tone as 16-bit PCM."""
    turn = 2 * math.pi * TONE_HZ / SAMPLE_RATE
    count = int(SAMPLE_RATE * TONE_SECONDS)
    return struct.pack(f"<{count}h", *(int(TONE_PEAK * math.sin(turn * i)) for i in range(count)))


def websocket_transport(args: WebSocketRunnerArguments) -> FastAPIWebsocketTransport:
    """The transport of a WebSocket session."""
    params = FastAPIWebsocketParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        audio_out_10ms_chunks=1,  # what does not fill a frame waits for more audio
        audio_out_end_silence_secs=0,  # nothing but the echo
        serializer=TextOrProtobuf(),
    )
    return FastAPIWebsocketTransport(websocket=args.websocket, params=params)


async def bot(args: RunnerArguments) -> None:
    """One session, from its start to its end."""
    global pipeline_task
    reset(args.session_id, args.body)
    steps: list[FrameProcessor] = [Echo()]
    transport = None
    if isinstance(args, WebSocketRunnerArguments):
        transport = websocket_transport(args)
        steps = [transport.input(), Echo(), transport.output()]
    task = PipelineWorker(
        Pipeline(steps),
        params=PipelineParams(audio_in_sample_rate=SAMPLE_RATE, audio_out_sample_rate=SAMPLE_RATE),
        # Nobody speaks here in Pipecat's sense; the front door has limits of its own.
        idle_timeout_secs=None,
    )
    if transport is not None:

        @transport.event_handler("on_client_disconnected")
        async def on_client_disconnected(_transport: object, _client: object) -> None:
            await task.cancel()

    pipeline_task = task
    try:
        runner = WorkerRunner(handle_sigint=args.handle_sigint)
        await runner.add_workers(task)
        await runner.run()
    finally:
        pipeline_task = None


if __name__ == "__main__":
    main()
