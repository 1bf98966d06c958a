// Drives examples/browser in headless Chromium, for test_browser.py.
//
//     CLIENTS_NPM=.clients-npm node browser.mjs CHROMIUM MICROPHONE.wav
//
// Requests are lines of JSON on stdin, {id, verb, …}; each is answered by a line {id, value} or
// {id, error} on stdout, in whatever order they are done. The end of stdin ends everything.

import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { audioOf } from "./frames.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const SITE = resolve(HERE, "../../examples/browser");
const NPM = resolve(process.env.CLIENTS_NPM);
const PATIENCE = 20_000;

const installed = createRequire(join(NPM, "package.json"));
const { chromium } = installed("playwright-core");
const esbuild = installed("esbuild");

async function until(condition, what) {
  const end = Date.now() + PATIENCE;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${PATIENCE} ms: ${what()}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** Serves the page on a port of its own, so that the relay is another origin. */
async function serve() {
  const context = await esbuild.context({
    entryPoints: { main: join(SITE, "main.js"), inside: join(HERE, "inside.mjs") },
    bundle: true,
    format: "esm",
    outdir: join(SITE, "dist"),
    nodePaths: [join(NPM, "node_modules")],
    write: false,
    logLevel: "warning",
  });
  const { port } = await context.serve({ host: "127.0.0.1", port: 0, servedir: SITE });
  return { origin: `http://127.0.0.1:${port}`, end: () => context.dispose() };
}

function launch(executablePath, microphone) {
  const args = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    `--use-file-for-fake-audio-capture=${microphone}`,
  ];
  return chromium.launch({ executablePath, args, headless: true });
}

/** What one WebSocket of a page has carried. */
class Wire {
  constructor(socket) {
    this.url = socket.url();
    this.sent = [];
    this.received = [];
    this.pcm = { sent: [], received: [] };
    this.closed = false;
    socket.on("framesent", ({ payload }) => this.note("sent", payload));
    socket.on("framereceived", ({ payload }) => this.note("received", payload));
    socket.on("close", () => (this.closed = true));
  }

  note(direction, payload) {
    const data = Buffer.from(payload);
    this[direction].push(data);
    if (typeof payload !== "string") this.pcm[direction].push(audioOf(data));
  }

  bytes(direction) {
    return this.pcm[direction].reduce((sum, { length }) => sum + length, 0);
  }

  record() {
    const text = (list) => list.map((data) => data.toString("base64"));
    return {
      url: this.url,
      sent: text(this.sent),
      received: text(this.received),
      sent_audio: Buffer.concat(this.pcm.sent).toString("base64"),
      received_audio: Buffer.concat(this.pcm.received).toString("base64"),
    };
  }
}

/** One page in a browser context of its own, and the last WebSocket it has opened. */
class Caller {
  static async open(browser, origin) {
    const context = await browser.newContext({ permissions: ["microphone"] });
    const caller = new Caller();
    caller.page = await context.newPage();
    caller.page.setDefaultTimeout(PATIENCE);
    caller.faults = [];
    caller.wire = null;
    caller.page.on("pageerror", (fault) => caller.faults.push(String(fault)));
    caller.page.on("websocket", (socket) => (caller.wire = new Wire(socket)));
    await caller.page.goto(origin);
    return caller;
  }

  async told() {
    const text = (id) => this.page.locator(id).textContent();
    const session = await text("#session");
    const log = await this.page.locator("#log li").allTextContents();
    return {
      state: await text("#state"),
      session: session === "–" ? "" : session,
      error: await text("#error"),
      log: log.map((line) => line.slice(8)), // without the time
    };
  }

  /** Fill the form and press Connect; done when the call is ready or refused. */
  async connect({ url, agent, key, body, rate }) {
    const { page } = this;
    await page.getByLabel("Relay URL").fill(url);
    await page.getByLabel("Agent").fill(agent);
    await page.getByLabel("Public key").fill(key);
    await page.getByLabel("Body for the bot").fill(body ?? "");
    await page.getByLabel("Microphone rate").selectOption(String(rate));
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    await page.waitForFunction(
      () =>
        document.getElementById("state").textContent === "ready" ||
        document.getElementById("error").textContent,
    );
    return this.told();
  }

  /** Done when so much audio has come back. */
  async hear({ bytes }) {
    const told = () => `${this.wire.bytes("received")} of ${this.wire.bytes("sent")} bytes`;
    await until(() => this.wire.bytes("received") >= bytes, told);
    return true;
  }

  /** Mute, wait until all but `missing` bytes are back, press Disconnect; what was carried. */
  async hangUp({ missing }) {
    const { page, wire } = this;
    await page.getByRole("button", { name: "Mute" }).click();
    // The worklet is told to stop by a message: what it had sent before is still to come.
    let [before, since] = [-1, 0];
    const quiet = () => {
      if (wire.bytes("sent") !== before) [before, since] = [wire.bytes("sent"), Date.now()];
      return Date.now() - since > 200 && before - wire.bytes("received") <= missing;
    };
    await until(quiet, () => `${wire.bytes("received")} of ${wire.bytes("sent")} bytes are back`);
    await page.getByRole("button", { name: "Disconnect" }).click();
    await until(() => wire.closed, () => "the WebSocket closes");
    await page.locator("#state", { hasText: "disconnected" }).waitFor();
    return { ...wire.record(), ...(await this.told()), faults: this.faults };
  }

  /** A function of inside.mjs, in the page. */
  inside({ name, argument }) {
    const run = async ([name, argument]) => (await import("/dist/inside.js"))[name](argument);
    return this.page.evaluate(run, [name, argument]);
  }

  async screenshot({ path, scheme, width }) {
    await this.page.setViewportSize({ width, height: 800 });
    await this.page.emulateMedia({ colorScheme: scheme });
    await this.page.screenshot({ path, fullPage: true });
    return true;
  }

  async close() {
    await this.page.context().close();
    return true;
  }
}

async function main() {
  const site = await serve();
  const browser = await launch(process.argv[2], process.argv[3]);
  const callers = [];

  async function obey({ verb, caller, ...rest }) {
    if (verb === "open") return callers.push(await Caller.open(browser, site.origin)) - 1;
    return callers[caller][verb](rest);
  }

  const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
  tell({ origin: site.origin });
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, ...request } = JSON.parse(line);
    obey(request).then(
      (value) => tell({ id, value }),
      (fault) => tell({ id, error: String(fault.stack ?? fault) }),
    );
  }
  await browser.close();
  await site.end();
}

await main();
