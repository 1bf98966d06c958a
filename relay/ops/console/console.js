// The console: asks for /status once a second and draws what it says. Nothing is kept in
// the page but one minute of gaps per call, made from the differences of two answers.
"use strict";

const EVERY = 1000; // milliseconds between two answers
const MINUTE = 60; // columns of a graph, one per answer
const STALL = 1.0; // seconds without a message after which a direction that ran counts as stalled
const FIRST_CLASS = 0.032; // seconds; each class of gaps is twice as long as the one before

const history = new Map(); // session id -> {client: [], bot: [], last}
const refused = []; // [time, total] of the last minute
let token = sessionStorage.getItem("token") || "";
let lost = 0;

const $ = (id) => document.getElementById(id);

function element(name, text, cls) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (cls) made.className = cls;
  return made;
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return s + "s";
  if (s < 3600) return Math.floor(s / 60) + "m" + String(s % 60).padStart(2, "0") + "s";
  return Math.floor(s / 3600) + "h" + String(Math.floor((s % 3600) / 60)).padStart(2, "0") + "m";
}

function short(seconds) {
  if (seconds < 0.001) return Math.round(seconds * 1e6) + " µs";
  if (seconds < 0.01) return (seconds * 1000).toFixed(1) + " ms";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  return seconds < 60 ? seconds.toFixed(1) + " s" : span(seconds);
}

async function ask(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = "Bearer " + token;
  return fetch(path, { ...options, headers, cache: "no-store" });
}

// Which gap was the longest since the last answer, in seconds: the highest class that grew,
// or the silence that lasts now.
function gapSince(now, before) {
  let longest = 0;
  now.gaps.forEach((count, index) => {
    if (count > ((before && before.gaps[index]) || 0)) longest = FIRST_CLASS * 2 ** (index + 1);
  });
  return Math.max(longest, now.messages > 0 ? now.quiet : 0);
}

function remember(calls) {
  const seen = new Set();
  for (const call of calls) {
    seen.add(call.sessionId);
    const kept = history.get(call.sessionId) || { client: [], bot: [], last: null };
    for (const side of ["client", "bot"]) {
      kept[side].push(gapSince(call[side], kept.last && kept.last[side]));
      if (kept[side].length > MINUTE) kept[side].shift();
      const before = kept.last ? kept.last[side].messages : call[side].messages;
      const seconds = kept.last ? call.seconds - kept.last.seconds : 0;
      kept[side].rate = seconds > 0.2 ? (call[side].messages - before) / seconds : kept[side].rate || 0;
    }
    kept.last = call;
    history.set(call.sessionId, kept);
  }
  for (const id of history.keys()) if (!seen.has(id)) history.delete(id);
}

// A stall: messages came before, and none has come for a while. Bots pause between their
// sentences, so only the caller's stream, which never pauses, raises the alarm.
const stalled = (call) => call.client.messages > 0 && call.client.quiet > STALL;

function graph(gaps, label) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "gaps");
  svg.setAttribute("viewBox", "0 0 120 24");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  gaps.forEach((gap, index) => {
    // Logarithmic: 20 ms is nothing, a second is half the height, a minute all of it.
    const height = Math.max(1, Math.min(24, 12 + 3.4 * Math.log2(Math.max(gap, 0.02)) * 0.6));
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    bar.setAttribute("x", 2 * (MINUTE - gaps.length + index));
    bar.setAttribute("y", 24 - height);
    bar.setAttribute("width", 1.6);
    bar.setAttribute("height", height);
    if (gap > STALL) bar.setAttribute("class", "long");
    svg.append(bar);
  });
  return svg;
}

function rows(table, items, row, none) {
  const body = $(table).tBodies[0];
  const made = items.map(row);
  if (!made.length) {
    const cell = element("td", none, "none");
    cell.colSpan = $(table).tHead.rows[0].cells.length;
    const empty = element("tr");
    empty.append(cell);
    made.push(empty);
  }
  keepingFocus(() => body.replaceChildren(...made));
}

// Rows are drawn anew each second: a button that has the keyboard's focus keeps it.
function keepingFocus(draw) {
  const key = document.activeElement && document.activeElement.dataset.key;
  draw();
  if (key) {
    const again = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (again && again !== document.activeElement) again.focus();
  }
}

function cells(values) {
  const row = element("tr");
  for (const value of values) {
    const cell = element("td");
    if (value && value.num !== undefined) {
      cell.className = "num";
      cell.textContent = value.num;
    } else if (value instanceof Node) cell.append(value);
    else cell.textContent = value;
    row.append(cell);
  }
  return row;
}

// A button that asks once more before it acts; the second press has five seconds.
const sure = new Map();
function button(key, text, question, act) {
  const made = element("button", sure.has(key) ? question : text, sure.has(key) ? "sure" : "");
  made.type = "button";
  made.dataset.key = key;
  made.addEventListener("click", async () => {
    if (!sure.has(key)) {
      sure.set(key, setTimeout(() => sure.delete(key), 5000));
      made.textContent = question;
      made.className = "sure";
      return;
    }
    clearTimeout(sure.get(key));
    sure.delete(key);
    const answer = await act();
    if (!answer.ok) health("refused: " + (await answer.text()).slice(0, 200), false);
    refresh();
  });
  return made;
}

const stop = (id) => ask("../sessions/" + id, { method: "DELETE" });
const drain = (what) =>
  ask("../drain", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what) });

function drawCalls(status) {
  const calls = [...status.calls].sort((a, b) => stalled(b) - stalled(a) || b.seconds - a.seconds);
  rows("calls", calls, (call) => {
    const kept = history.get(call.sessionId);
    const id = element("code", call.sessionId.slice(0, 8));
    id.title = call.sessionId;
    const rate = (side) => {
      const quiet = call[side].quiet;
      return { num: call[side].messages && quiet > STALL ? "silent " + span(quiet) : Math.round(kept[side].rate) + "/s" };
    };
    const row = cells([
      id, call.agent, span(call.seconds),
      rate("client"), graph(kept.client, "gaps of the caller's stream"),
      rate("bot"), graph(kept.bot, "gaps of the bot's stream"),
      short(call.client.heldTime + call.bot.heldTime),
      button("stop " + call.sessionId, "Stop", "End this call?", () => stop(call.sessionId)),
    ]);
    if (stalled(call)) {
      row.className = "stalled";
      row.cells[3].className = "num flag";
    }
    return row;
  }, "no calls");
  const more = status.callsTotal - calls.length;
  $("calls-note").textContent = more > 0 ? `${more} more that are not shown: the quietest stand here` : "";
}

function drawAgents(status) {
  const drawn = status.agents.map((agent) => {
    const card = element("article", undefined, "card agent");
    const head = element("header");
    head.append(element("strong", agent.name), element("span", agent.organization, "quiet"));
    const own = status.instances.filter((each) => each.agent === agent.name);
    const free = own.filter((each) => each.state === "ready" && !each.sessions && !each.draining).length;
    head.append(element("span", `${agent.active} active, ${agent.queue} waiting, ${agent.reserved} reserved, ${free} free, ${agent.startable} startable`));
    head.append(drainButton("agent", agent.name, agent.draining));
    card.append(head);
    const list = element("ul");
    for (const instance of own) {
      const busy = instance.sessions > 0;
      const state = instance.draining ? "draining" : busy ? `busy (${instance.sessions})` : instance.state;
      const item = element("li");
      item.append(element("code", instance.url));
      item.append(element("span", state, busy ? "state-busy" : state === "ready" ? "state-ready" : "state-other"));
      item.append(drainButton("instance", instance.url, instance.draining));
      list.append(item);
    }
    card.append(list);
    return card;
  });
  keepingFocus(() => $("agents").replaceChildren(...drawn));
}

function drainButton(kind, name, on) {
  return on
    ? button(`${kind} ${name}`, "Take calls again", "Take new calls?", () => drain({ [kind]: name, on: false }))
    : button(`${kind} ${name}`, "Drain", "No new calls?", () => drain({ [kind]: name, on: true }));
}

function drawRest(status) {
  rows("queue", status.queue, (each) =>
    cells([element("code", each.sessionId.slice(0, 8)), each.agent, { num: span(status.now - each.since) }]), "nobody waits");
  rows("pumps", status.pumps, (pump) =>
    cells(["" + pump.index, pump.state, { num: pump.tunnels }, { num: short(pump.busy) }, { num: short(pump.longestTurn) }]), "no pumps");
  rows("ends", status.ends, (end) =>
    cells([element("code", end.sessionId.slice(0, 8)), end.agent, end.cause, { num: end.seconds === null ? "–" : span(end.seconds) }, { num: span(status.now - end.endedAt) }]), "none yet");
  rows("refusals", status.refusals, (each) =>
    cells([each.phase, each.cause, { num: each.status || "–" }, { num: each.count }, { num: span(status.now - each.lastAt) }]), "none yet");
}

function drawTiles(status) {
  const total = status.refusals.reduce((sum, each) => sum + each.count, 0);
  refused.push([status.now, total]);
  while (refused[0][0] < status.now - 60) refused.shift();
  const stalls = status.calls.filter(stalled).length;
  $("n-calls").textContent = status.callsTotal;
  $("n-stalled").textContent = stalls;
  $("t-stalled").classList.toggle("alarm", stalls > 0);
  $("n-queue").textContent = status.queue.length;
  $("n-ready").textContent = status.instances.filter((each) => each.state === "ready" && !each.sessions).length;
  $("n-refused").textContent = total - refused[0][1];
  $("n-delay").textContent = status.pumps.length ? short(Math.max(...status.pumps.map((pump) => pump.longestTurn))) : "–";
}

function health(text, good) {
  $("health").className = good ? "good" : "bad";
  if ($("health").textContent !== text) $("health").textContent = text;
}

function draw(status) {
  remember(status.calls);
  $("node").textContent = `node ${status.name.slice(0, 8)} · ${status.publicUrl} · ${status.version} · up ${span(status.now - status.startedAt)}`;
  health(status.reasons.length ? "takes no new calls: " + status.reasons.join(", ") : "takes new calls", !status.reasons.length);
  drawTiles(status);
  drawCalls(status);
  drawAgents(status);
  drawRest(status);
  const node = drainButton("node", true, status.draining);
  node.id = "drain-node";
  keepingFocus(() => $("drain-node").replaceWith(node));
  document.title = `${status.callsTotal} call${status.callsTotal === 1 ? "" : "s"} – relay`;
}

async function refresh() {
  try {
    const answer = await ask("../status");
    $("access").hidden = answer.status !== 401;
    $("main").hidden = answer.status === 401;
    if (answer.ok) {
      draw(await answer.json());
      lost = 0;
    } else if (answer.status === 401) health(token ? "the daemon does not take this token" : "a token is needed", false);
    else health("the daemon answered " + answer.status, false);
  } catch {
    lost += 1;
    health(`no answer from the daemon for ${span(lost * EVERY / 1000)}; what is shown is old`, false);
  }
}

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("token", token);
  refresh();
});

async function run() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((done) => setTimeout(done, EVERY));
  }
}
run();
