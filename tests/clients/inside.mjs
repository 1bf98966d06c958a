// What test_browser.py has done in the page without its form: calls of the same Call.

import { Call } from "../../examples/browser/call.js";

/** A ready call, from a start's answer or what a start needs; throws what the client throws. */
async function open(answer) {
  let call;
  const ready = new Promise((resolve) => {
    call = new Call({
      sampleRate: 16000,
      onAudio() {},
      callbacks: { onTransportStateChanged: (state) => state === "ready" && resolve() },
    });
  });
  const { wsUrl, token, body } = answer.wsUrl ? answer : await call.start(answer);
  // A bot that only echoes never says that it is ready, so this promise may stay open.
  const failed = call.connect({ wsUrl, token, body }).then(() => new Promise(() => {}));
  await Promise.race([ready, failed]);
  return { call, answer: { wsUrl, token, body } };
}

/** How the second use of a token ends, in the client's words. */
export async function tokenTwice(wish) {
  const first = await open(wish);
  await first.call.disconnect();
  try {
    await open(first.answer);
    return "connected";
  } catch (fault) {
    return fault.message;
  }
}

/** startBotAndConnect(): the client's own way from the answer of a start to its WebSocket. */
export async function inOneStep(wish) {
  const { client } = new Call({ sampleRate: 16000, onAudio() {}, callbacks: {} });
  const request = {
    endpoint: `${wish.url}/v1/public/${wish.agent}/start`,
    headers: new Headers({ Authorization: `Bearer ${wish.key}` }),
    requestData: { transport: "websocket" },
  };
  try {
    await client.startBotAndConnect(request);
    return "connected";
  } catch (fault) {
    return fault.message;
  }
}

/** What the example bot answers to commands, sent as text on the client's own WebSocket. */
export async function asks({ commands, ...wish }) {
  const { call } = await open(wish);
  // The client only ever sends binary messages; this is the socket below it.
  const socket = call.client.transport._ws._ws._ws;
  const answers = [];
  for (const command of commands) {
    answers.push(
      await new Promise((resolve) => {
        const take = ({ data }) => {
          if (typeof data !== "string") return;
          socket.removeEventListener("message", take);
          resolve(data);
        };
        socket.addEventListener("message", take);
        socket.send(command);
      }),
    );
  }
  await call.disconnect();
  return answers;
}
