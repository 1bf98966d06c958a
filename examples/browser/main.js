// The page: a form, a call, and what happens during it.

import { Call } from "./call.js";

const form = document.querySelector("form");
const element = (id) => document.getElementById(id);

let call = null;
let muted = false;
let sessionId = "";
let seconds = 0;
let peaks = { sent: 0, received: 0 }; // since the meters were last drawn

// --- what is shown ---

function log(text, kind = "") {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toTimeString().slice(0, 8);
  line.className = kind;
  line.append(time, text);
  element("log").append(line);
  element("log").scrollTop = element("log").scrollHeight; // scrollIntoView would move the page
}

function show(state) {
  const on = call !== null;
  element("state").textContent = state;
  element("state").dataset.state = state;
  element("session").textContent = sessionId || "–";
  element("fields").disabled = on;
  element("disconnect").disabled = !on;
  element("mute").disabled = state !== "ready";
  element("mute").setAttribute("aria-pressed", String(muted));
  // What is disabled loses the keyboard's focus: hand it on.
  const focused = document.activeElement;
  if (focused === document.body || focused.matches(":disabled")) {
    element(on ? "disconnect" : "connect").focus();
  }
}

function draw() {
  element("sent").value = peaks.sent;
  element("received").value = peaks.received;
  element("seconds").textContent = `${seconds.toFixed(1)} s`;
  peaks = { sent: 0, received: 0 };
}

// --- the form ---

function bodyObject(text) {
  if (!text.trim()) return undefined;
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  } catch {
    // the same sentence says what is wanted
  }
  throw new Error('The body must be a JSON object, such as {"caller": "alice"}.');
}

/** The client's own reports of a microphone that it may not use are late and unclear. */
async function askForMicrophone() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the microphone to pages from https or 127.0.0.1 only.");
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    for (const track of stream.getTracks()) track.stop();
  } catch (fault) {
    throw new Error(`The microphone cannot be used: ${fault.message}`);
  }
}

// What Chromium, Firefox and Safari say when there was no answer that a page may read.
const NO_ANSWER = /^(Failed to fetch|NetworkError|Load failed)/;

/** A sentence for an error of any of the client's steps. */
function reason(fault, step) {
  if (step === "start" && NO_ANSWER.test(fault.message)) {
    return "No relay answers at this URL, or it does not allow this page's origin.";
  }
  if (step === "start" && fault.status) return `Start refused, ${fault.status}: ${fault.message}`;
  if (step === "connect") {
    // Browsers do not tell pages the status of a refused upgrade.
    return `The WebSocket did not open; the relay's log says why. ${fault.message}`;
  }
  return fault.message;
}

// --- the call ---

function callbacks(of) {
  const current = (act) => (value) => of() === call && act(value);
  return {
    onTransportStateChanged: current((state) => {
      log(state);
      show(state);
    }),
    onError: current((message) => log(message.data?.message ?? "error", "bad")),
    onDisconnected: current(() => {
      call = null;
      show("disconnected");
    }),
    onBotReady: current(({ version }) => log(`bot ready, RTVI ${version}`)),
    onUserTranscript: current(({ text, final }) => final && log(`you: ${text}`)),
    onBotOutput: current(({ text }) => log(`bot: ${text}`)),
    onServerMessage: current((message) => log(`from the bot: ${JSON.stringify(message)}`)),
  };
}

function newCall(sampleRate) {
  const made = new Call({
    sampleRate,
    callbacks: callbacks(() => made),
    onAudio(direction, loudness, length = 0) {
      seconds += length;
      peaks[direction] = Math.max(peaks[direction], loudness);
    },
  });
  return made;
}

async function connect() {
  const fields = Object.fromEntries(new FormData(form));
  element("fields").disabled = true;
  element("error").textContent = "";
  [sessionId, seconds, muted] = ["", 0, false];
  let step = "form";
  try {
    const body = bodyObject(fields.body);
    await askForMicrophone();
    call = newCall(Number(fields.rate));
    step = "start";
    const answer = await call.start({ ...fields, body });
    ({ sessionId } = answer);
    log(`session ${sessionId}`);
    step = "connect";
    await call.connect(answer);
  } catch (fault) {
    element("error").textContent = reason(fault, step);
    call = null; // the client has disconnected by itself
    show("disconnected");
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});

element("disconnect").addEventListener("click", () => {
  call.disconnect().catch((fault) => log(fault.message, "bad"));
});

element("mute").addEventListener("click", () => {
  muted = !muted;
  call.muted = muted;
  element("mute").setAttribute("aria-pressed", String(muted));
});

setInterval(draw, 100);
