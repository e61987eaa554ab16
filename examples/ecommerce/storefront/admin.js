"use strict";
// Behind the counter. Everything that is shown is set as text, never as HTML.

const STATES = ["attention", "waiting", "error", "degraded", "paused", "compensating", "compensated", "resolved_manually", "pending", "in_progress", "complete", "cancelled"];
const WORDS = { attention: "what needs a person", waiting: "waiting for a system", error: "failed", in_progress: "under way", resolved_manually: "resolved by hand", half_open: "half open", up: "up", down: "down", slow: "slow" };
const MODES = ["up", "slow", "down"];
const OF_TASK = [
  { action: "retry", label: "Retry", hint: "Goes on from where it failed; what was undone is done anew.", states: ["error", "compensated"] },
  { action: "edit_context", label: "Edit the input…", hint: "The next attempts read the new input. A payment token is not shown: leave its placeholder and it stays as it is.", field: "context" },
  { action: "pause", label: "Pause", hint: "No further step starts until somebody resumes it.", states: ["pending", "in_progress"] },
  { action: "resume", label: "Resume", hint: "Goes on where it was paused.", states: ["paused"] },
  { action: "cancel", label: "Cancel", hint: "Running steps are told, and nothing that they still do counts.", states: ["pending", "in_progress", "paused"] },
  { action: "compensate", label: "Undo", hint: "Undoes what its steps did, last one first: the payment is refunded, the items go back.", states: ["error", "cancelled", "paused", "complete"] },
  { action: "resolve", label: "Mark as resolved", hint: "You have seen to it outside: nothing more happens.", states: ["error"] },
];
const OF_STEP = [
  { action: "retry_step", label: "Retry", hint: "This step runs again.", states: ["error", "ready"] },
  { action: "retry_from", label: "Retry from here", hint: "This step and all that follow from it run again.", states: ["error", "complete", "skipped", "resolved_manually"] },
  { action: "resolve_step", label: "Give its result…", hint: "The order goes on as if the step had returned this.", field: "result", states: ["error", "ready", "blocked"] },
  { action: "skip_step", label: "Skip", hint: "The order goes on without it.", states: ["error", "ready", "blocked"] },
  { action: "set_retry_limit", label: "Set its limit…", hint: "How many attempts it has, the first included.", field: "limit", states: ["error", "ready", "blocked", "in_progress"] },
];

const $ = (id) => document.getElementById(id);
const word = (text) => WORDS[text] || String(text ?? "").replaceAll("_", " ");
const show = (element, text) => { element.hidden = !text; element.textContent = text || ""; };
const time = (text) => text ? new Date(text).toLocaleString() : "";
/** A sentence of the shop's with its times as this page writes them. */
const told = (text) => text && text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+Z/g, time);
const plain = (value) => value == null ? "" : typeof value === "string" ? value : JSON.stringify(value);
function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children.filter((child) => child != null));
  return element;
}
const chip = (state) => make("span", { className: `chip ${state}` }, word(state));
const quiet = (text) => text ? make("span", { className: "quiet" }, text) : null;
function button(label, act, disabled = false) {
  const one = make("button", { type: "button", className: "small", disabled }, label);
  one.addEventListener("click", act);
  return one;
}
const actions = (...buttons) => make("div", { className: "actions" }, ...buttons);
function fill(list, rows, nothing) {
  list.replaceChildren(...(rows.length ? rows : [make("li", { className: "empty" }, nothing)]));
}

// --- asking the shop --------------------------------------------------------------------------

async function ask(path, body, key) {
  const headers = { "Content-Type": "application/json", ...(key && { "Idempotency-Key": key }) };
  const answer = await fetch(path, body === undefined ? {} : { method: "POST", headers, body: JSON.stringify(body) });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(json.error || `The shop answers ${answer.status}`), { status: answer.status });
  return json;
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- what a person does, with a name and a reason ---------------------------------------------

let asked = null; // { send, fields, key }

/** Opens the dialog. `send` gets `{actor, reason}`, what the fields say, and an idempotency key. */
function decide(title, hint, fields, send) {
  asked = { fields, send, key: newKey() };
  $("dialog-title").textContent = title;
  show($("dialog-hint"), hint);
  show($("dialog-problem"), "");
  $("dialog-fields").replaceChildren(...fields.map(({ name, label, value = "", kind = "text" }) => {
    const id = `field-${name}`;
    const input = kind === "json" ? make("textarea", { id, value, spellcheck: false }) : make("input", { id, value, type: kind });
    return make("label", {}, label, input);
  }));
  $("reason").value = "";
  $("dialog").showModal();
  ($("dialog-fields").querySelector("input, textarea") || ($("actor").value ? $("reason") : $("actor"))).focus();
}

async function send(event) {
  event.preventDefault();
  const actor = $("actor").value.trim();
  const reason = $("reason").value.trim();
  if (!actor || !reason) return show($("dialog-problem"), "Say who you are and why: it is kept on record.");
  const body = { actor, reason };
  try {
    for (const { name, kind } of asked.fields) {
      const text = $(`field-${name}`).value.trim();
      if (kind === "json") body[name] = JSON.parse(text);
      else if (text) body[name] = kind === "number" ? Number(text) : text;
    }
  } catch (error) {
    return show($("dialog-problem"), `This is not JSON: ${error.message}`);
  }
  try { localStorage.setItem("actor", actor); } catch { /* private window */ }
  $("dialog-do").disabled = true;
  try {
    await asked.send(body, asked.key);
    $("announce").textContent = `${$("dialog-title").textContent}: done`;
    $("dialog").close();
    await refresh();
  } catch (error) {
    // With the same key it is safe to ask again.
    show($("dialog-problem"), error.status ? error.message : "The shop does not answer: ask again, it is done once.");
    if (error.status && error.status !== 503) asked.key = newKey();
  } finally {
    $("dialog-do").disabled = false;
  }
}

// --- the gateway, the systems, the escalations ------------------------------------------------

async function drawGateway() {
  const gateway = await ask("/demo/gateway");
  $("gateway-mode").className = `chip ${gateway.mode}`;
  $("gateway-mode").textContent = word(gateway.mode);
  const since = gateway.since ? ` since ${time(gateway.since)}` : "";
  $("gateway-calls").textContent = `${gateway.calls_since} calls${since}, ${gateway.at_once_since} at once at most; ${gateway.calls} ever.`;
  $("gateway-switch").replaceChildren(...MODES.map((mode) => {
    const one = button(word(mode), () => ask("/demo/gateway", { mode }).then(refresh, lost));
    one.setAttribute("aria-pressed", String(mode === gateway.mode));
    return one;
  }));
}

async function drawSystems() {
  const { systems } = await ask("/admin/systems");
  fill($("systems"), systems.map((one) => {
    const act = (verb, label, hint) => button(label, () => decide(`${label}: ${one.name}`, hint, [],
      (body, key) => ask(`/admin/systems/${encodeURIComponent(one.name)}/${verb}`, body, key)));
    const facts = [one.reason, one.since && `since ${time(one.since)}`, one.next_probe_at && `next probe ${time(one.next_probe_at)}`, one.waiting ? `${one.waiting} ${one.waiting === 1 ? "order waits" : "orders wait"}` : ""];
    return make("li", {},
      make("div", { className: "row-head" }, make("b", {}, one.name), chip(one.state)),
      quiet(facts.filter(Boolean).join(" · ")),
      actions(act("trip", "Trip", "Nobody calls it until it is probed, or reset."), act("reset", "Reset", "It counts as well, and what waits for it is let go little by little.")));
  }), "None has been called yet.");
}

async function drawEscalations() {
  const { escalations } = await ask("/admin/escalations");
  fill($("escalations"), escalations.map((one) => {
    const act = (verb, label, hint) => button(label, () => decide(label, hint, [],
      (body, key) => ask(`/admin/escalations/${encodeURIComponent(one.key)}/${verb}`, body, key)), verb === "acknowledge" && one.state !== "open");
    return make("li", {},
      make("div", { className: "row-head" }, chip(one.state), make("span", {}, told(one.sentence))),
      quiet([time(one.raised_at), one.actor && `${one.actor}: ${one.reason}`].filter(Boolean).join(" · ")),
      actions(one.task_id ? button("See the order", () => open(one.task_id)) : null,
        act("acknowledge", "Acknowledge", "Somebody is on it."), act("resolve", "Resolve", "It is seen to.")));
  }), "Nobody is called for.");
}

// --- the orders -------------------------------------------------------------------------------

/** Of an order that nothing needs to be explained about. */
const said = (task) => ({
  compensated: "It failed or was called off, and whatever was done for it has been undone.",
  resolved_manually: "A person has seen to it.",
})[task.state] || (task.degraded ? "It is complete, although a step of it failed or was skipped." : "It is complete.");

async function drawTasks() {
  const { tasks } = await ask(`/admin/tasks?state=${encodeURIComponent($("state").value)}`);
  fill($("task-list"), tasks.map((task) => {
    const name = make("button", { type: "button", className: "plain" }, task.task_id);
    name.addEventListener("click", () => open(task.task_id));
    return make("li", {},
      make("div", { className: "row-head" }, name, chip(task.state), task.degraded ? chip("degraded") : null, quiet(time(task.created_at))),
      make("span", {}, task.why?.sentence || (task.degraded ? "It is complete, although a step of it failed." : "It is complete.")));
  }), "None.");
}

let opened = null;

function open(id) {
  opened = id;
  drawTask().then(() => { $("task").hidden = false; $("task").scrollIntoView({ block: "start" }); $("task").focus({ preventScroll: true }); }).catch(lost);
}

async function drawTask() {
  if (!opened) return;
  const task = await ask(`/workflow_details/${opened}`);
  $("task-title").textContent = `Order ${task.task_id}`;
  $("task-state").className = `chip ${task.state}`;
  $("task-state").textContent = word(task.state) + (task.degraded ? ", degraded" : "");
  $("task-why").textContent = told(task.why?.sentence) || said(task);
  const context = JSON.stringify(task.context, null, 2);
  const act = (one, step) => {
    const title = step ? `${one.label.replace("…", "")}: ${step.name}` : one.label.replace("…", "");
    const fields = one.field === "context" ? [{ name: "context", label: "Input", value: context, kind: "json" }]
      : one.field === "result" ? [{ name: "result", label: "Result", value: step.result ? JSON.stringify(step.result, null, 2) : "{}", kind: "json" }]
      : one.field === "limit" ? [{ name: "limit", label: "Attempts", value: step.retry_limit, kind: "number" }] : [];
    const about = { action: one.action, ...(step && { step: step.name }), ...(task.version != null && { expects: task.version }) };
    const fits = !one.states || one.states.includes((step || task).state);
    return button(one.label, () => decide(title, one.hint, fields,
      (body, key) => ask(`/admin/tasks/${task.task_id}/actions`, { ...about, ...body }, key)), !fits);
  };
  $("task-actions").replaceChildren(...OF_TASK.map((one) => act(one)));
  const why = new Map((task.why?.steps || []).map((one) => [one.step, one.sentence]));
  fill($("task-steps"), task.steps.map((step) => make("li", {},
    make("div", { className: "row-head" }, make("b", {}, step.name), chip(step.state), step.attempts ? quiet(`attempt ${step.attempts_counted} of ${step.retry_limit}`) : null),
    quiet(told(why.get(step.name)) || step.failure?.message),
    step.result ? make("code", { className: "quiet" }, JSON.stringify(step.result)) : null,
    actions(...OF_STEP.map((one) => act(one, step))))), "None.");
  $("task-context").textContent = context;
  $("task-history").replaceChildren(...task.history.map((row) => make("tr", {},
    ...[time(row.at), word(row.event) + (row.attempt ? ` (attempt ${row.attempt})` : ""), row.step,
      [author(row.author), row.reason || row.failure?.message].filter(Boolean).join(": "), row.before, row.after]
      .map((value) => make("td", value == null || value === "" ? { className: "none" } : {}, plain(value))))));
}

const author = (one) => one?.name || one?.operator || (typeof one === "string" ? one : "");

function retryMany() {
  decide("Retry many", "All failed orders that fit what you fill in. An empty field fits all.", [
    { name: "failed_step", label: "Failed at the step" },
    { name: "error_code", label: "With the error" },
    { name: "limit", label: "At most so many", value: 100, kind: "number" },
  ], (body, key) => ask("/admin/tasks/retry", body, key));
}

// --- start ------------------------------------------------------------------------------------

const lost = (error) => show($("connection"), error.status ? error.message : "The shop does not answer, trying again…");

async function refresh() {
  const sections = [[drawGateway], [drawSystems, "systems"], [drawEscalations, "escalations"], [drawTasks, "task-list"], [drawTask]];
  let unheard = null;
  for (const [draw, list] of sections) {
    try { await draw(); } catch (error) {
      if (!error.status || error.status === 503) unheard = error;
      else if (list) fill($(list), [], error.message);
    }
  }
  if (unheard) lost(unheard); else show($("connection"), "");
}

$("state").append(...STATES.map((state) => make("option", { value: state }, word(state))));
$("state").addEventListener("change", refresh);
$("retry-all").addEventListener("click", retryMany);
$("form").addEventListener("submit", send);
$("dialog-leave").addEventListener("click", () => $("dialog").close());
try { $("actor").value = localStorage.getItem("actor") || ""; } catch { /* private window */ }
(async () => {
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  for (;;) {
    // What a person is about to decide on stays as it was seen.
    if (!document.hidden && !$("dialog").open) await refresh();
    await pause(2500);
  }
})();
