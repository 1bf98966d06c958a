// A call through the relay with Pipecat's own client; nothing here knows of the page.

import { PipecatClient } from "@pipecat-ai/client-js";
import {
  ProtobufFrameSerializer,
  WavMediaManager,
  WebSocketTransport,
} from "@pipecat-ai/websocket-transport";

const CHUNK_BYTES = 512; // per message, as the transport's default has it: 16 ms at 16 kHz
const METER_FLOOR_DB = -60;

/** 0 for silence up to 1 for full scale, on a logarithmic scale as ears have it. */
function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += (sample / 32768) ** 2;
  const db = 10 * Math.log10(sum / samples.length);
  return Math.max(0, 1 - db / METER_FLOOR_DB);
}

/** The transport's own serializer, which also tells of each chunk of audio that passes. */
class MeteredSerializer extends ProtobufFrameSerializer {
  constructor(onAudio) {
    super();
    this.onAudio = onAudio;
  }

  serializeAudio(data, sampleRate, channels) {
    const samples = new Int16Array(data);
    this.onAudio("sent", loudness(samples), samples.length / sampleRate);
    return super.serializeAudio(data, sampleRate, channels);
  }

  async deserialize(data) {
    const message = await super.deserialize(data);
    if (message.type === "audio") this.onAudio("received", loudness(message.audio));
    return message;
  }
}

/**
 * One call of one client. A client could be used again, but its player stays silent once it
 * has been interrupted, which a disconnect does; so each call has a client of its own.
 */
export class Call {
  /** `callbacks` are PipecatClient's; `onAudio(direction, loudness[, seconds])` per chunk. */
  constructor({ sampleRate, callbacks, onAudio }) {
    const transport = new WebSocketTransport({
      // The default media manager loads code from elsewhere before it opens the microphone.
      mediaManager: new WavMediaManager(CHUNK_BYTES, sampleRate),
      recorderSampleRate: sampleRate,
      serializer: new MeteredSerializer(onAudio),
    });
    this.client = new PipecatClient({ transport, enableMic: true, enableCam: false, callbacks });
  }

  /** Ask for a session: {sessionId, wsUrl, token[, body]}, or a StartBotError is thrown. */
  start({ url, agent, key, body }) {
    return this.client.startBot({
      endpoint: `${url.replace(/\/+$/, "")}/v1/public/${encodeURIComponent(agent)}/start`,
      headers: new Headers({ Authorization: `Bearer ${key}` }), // a plain object is not taken
      requestData: { transport: "websocket", ...(body && { body }) },
    });
  }

  /**
   * Open the WebSocket of a session. The promise is kept when a Pipecat bot says that it is
   * ready; a bot that does not speak RTVI never does, so wait for the state "ready" instead.
   */
  connect({ wsUrl, token, body }) {
    // The client takes wsUrl and token and refuses every other member of the answer, which is
    // why startBotAndConnect() does not do. It puts the token behind the body by itself.
    const url = body ? `${wsUrl}?body=${encodeURIComponent(body)}` : wsUrl;
    return this.client.connect({ wsUrl: url, token });
  }

  set muted(muted) {
    this.client.enableMic(!muted);
  }

  disconnect() {
    return this.client.disconnect();
  }
}
