// Looks at the daemon's console in headless Chromium, for test_console.py.
//
//     CLIENTS_NPM=.clients-npm node console.mjs CHROMIUM URL
//
// Requests are lines of JSON on stdin, {verb, …}; each is answered by a line of JSON on stdout.
// The end of stdin ends everything.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const PATIENCE = 20_000;
const installed = createRequire(join(resolve(process.env.CLIENTS_NPM), "package.json"));
const { chromium } = installed("playwright-core");

const browser = await chromium.launch({
  executablePath: process.argv[2],
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});
const page = await browser.newPage();
page.setDefaultTimeout(PATIENCE);
const faults = [];
const elsewhere = [];
page.on("pageerror", (fault) => faults.push(String(fault)));
// What the daemon refuses, or that it is gone, the browser tells too; the page shows it.
const known = /^Failed to load resource: (the server responded|net::ERR_CONNECTION_REFUSED)/;
page.on("console", (line) => {
  if (line.type() === "error" && !known.test(line.text())) faults.push(line.text());
});
page.on("request", (request) => {
  if (!request.url().startsWith(process.argv[3]) && !request.url().startsWith("data:"))
    elsewhere.push(request.url());
});

const verbs = {
  async open() {
    await page.goto(process.argv[3]);
    return page.url();
  },
  /** Done when an element's text is, or contains, what is wanted. */
  async wait({ at, text, whole }) {
    await page.waitForFunction(
      ([at, text, whole]) => {
        const shown = document.querySelector(at)?.textContent ?? "";
        return whole ? shown === text : shown.includes(text);
      },
      [at, text, whole ?? false],
    );
    return true;
  },
  text: ({ at }) => page.locator(at).first().textContent(),
  texts: ({ at }) => page.locator(at).allTextContents(),
  title: ({ at }) => page.locator(at).first().getAttribute("title"),
  visible: ({ at }) => page.locator(at).first().isVisible(),
  async fill({ at, value }) {
    await page.locator(at).fill(value);
    await page.keyboard.press("Enter");
    return true;
  },
  /** Tab from the top of the page until the wanted element has the focus; how often. */
  async tabTo({ at }) {
    await page.evaluate(() => document.activeElement.blur());
    for (let count = 1; count < 300; count += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((at) => document.activeElement.matches(at), at)) return count;
    }
    throw new Error(`${at} cannot be reached with the keyboard`);
  },
  async press({ key }) {
    await page.keyboard.press(key);
    return true;
  },
  /** A picture; and how far the page is wider than the window. */
  async picture({ path, width, height, scheme }) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
    await page.screenshot({ path, fullPage: true });
    return page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
  },
  faults: async () => ({ faults, elsewhere }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await verbs[verb](rest) };
  } catch (fault) {
    answer = { error: String(fault.stack ?? fault) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
