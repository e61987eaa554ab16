"use strict";
// The storefront. Everything that is shown is set as text, never as HTML.

const OUTCOMES = [
  { label: "Everything works", hint: "Five steps, done in a moment.", token: "test_success_visa" },
  { label: "The gateway stumbles twice", hint: "Two attempts fail, the third goes through.", token: "test_temp_fail_visa" },
  { label: "The answer gets lost", hint: "The money is taken, the answer is not heard. The next attempt finds the same charge: you pay once.", token: "test_lost_answer_visa" },
  { label: "The gateway is busy", hint: "It asks to wait three seconds each time; after three attempts the order fails.", token: "test_rate_limit_gateway" },
  { label: "The gateway is down", hint: "All three attempts fail. Then press Retry: by then it is up again.", token: "test_outage_visa" },
  { label: "The gateway times out", hint: "Three attempts, then the payment is called off and the order waits for you.", token: "test_timeout_gateway" },
  { label: "The gateway never answers", hint: "Every attempt is given up after five seconds.", token: "test_hang_gateway" },
  { label: "Not enough funds", hint: "Refused for good: trying again would not help.", token: "test_insufficient_funds" },
  { label: "It looks like fraud", hint: "Refused for good.", token: "test_fraud_detected" },
  { label: "The price is not the agreed one", hint: "You agree to 1.00 less: set aside, compared, given back.", token: "test_success_visa", less: 100 },
  { label: "The e-mail bounces", hint: "The order stands all the same, marked as degraded.", token: "test_success_visa", email: "customer@bounces.example" },
];
const NAMES = {
  validate_cart: "Check the cart", process_payment: "Take the payment", update_inventory: "Reserve the items",
  create_order: "Write the order", send_confirmation: "Confirm by e-mail",
};
const STATES = { processing: "Under way", completed: "Done", failed: "Failed", cancelled: "Cancelled" };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RECENT = "recent-orders";

const $ = (id) => document.getElementById(id);
const money = (cents) => (cents / 100).toFixed(2);
const show = (element, text) => { element.hidden = !text; element.textContent = text || ""; };
function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// --- the cart ---------------------------------------------------------------------------------

let products = [];
const cart = new Map([[1, 2]]);
let purchase = null; // the Idempotency-Key of what is being bought: a new one for every other cart

async function loadProducts() {
  const answer = await fetch("/products");
  if (!answer.ok) throw new Error("no products");
  products = (await answer.json()).map((one) => ({ ...one, cents: Math.round(one.price * 100) }));
  drawProducts();
}

function drawProducts() {
  const list = $("products");
  list.setAttribute("aria-busy", "false");
  if (list.children.length !== products.length || !list.querySelector(".product")) {
    list.replaceChildren(...products.map(productCard));
  }
  for (const product of products) {
    const stock = $(`stock-${product.product_id}`);
    const few = product.available <= 5;
    stock.className = few ? "stock low" : "stock";
    stock.textContent = product.available === 0 ? "Sold out" : few ? `Only ${product.available} left` : `${product.available} in stock`;
    $(`quantity-${product.product_id}`).max = product.available;
  }
  drawCart();
}

function productCard(product) {
  const id = product.product_id;
  const input = make("input", { id: `quantity-${id}`, type: "number", min: 0, inputMode: "numeric", value: cart.get(id) || 0 });
  input.setAttribute("aria-label", `How many of ${product.name}`);
  input.addEventListener("change", () => setQuantity(id, Number(input.value)));
  // Enter ends the number; it must not pay.
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    setQuantity(id, Number(input.value));
  });
  const step = (text, by, what) => {
    const button = make("button", { type: "button", id: `${by > 0 ? "more" : "less"}-${id}` }, text);
    button.setAttribute("aria-label", `${what} ${product.name}`);
    button.addEventListener("click", () => setQuantity(id, (cart.get(id) || 0) + by));
    return button;
  };
  return make("li", { className: "product", id: `product-${id}` },
    make("b", {}, product.name),
    make("div", { className: "facts" },
      make("span", { className: "price" }, money(product.cents)), make("span", { id: `stock-${id}` })),
    make("div", { className: "stepper" }, step("−", -1, "One less of"), input, step("+", 1, "One more of")));
}

function setQuantity(id, quantity) {
  const product = products.find((one) => one.product_id === id);
  const most = Math.min(product.available, 1000);
  const wanted = Math.max(0, Math.min(most, Math.trunc(quantity) || 0));
  if (wanted) cart.set(id, wanted); else cart.delete(id);
  purchase = null;
  drawCart();
}

const lines = () => products.filter((one) => cart.get(one.product_id)).map((one) => ({ ...one, quantity: cart.get(one.product_id) }));
const total = () => lines().reduce((sum, line) => sum + line.cents * line.quantity, 0);
const outcome = () => OUTCOMES[Number(new FormData($("checkout")).get("outcome")) || 0];
const agreed = () => Math.max(1, total() - (outcome().less || 0));

function drawCart() {
  for (const { product_id: id, available } of products) {
    const quantity = cart.get(id) || 0;
    $(`quantity-${id}`).value = quantity;
    $(`less-${id}`).disabled = quantity === 0;
    $(`more-${id}`).disabled = quantity >= Math.min(available, 1000);
    $(`product-${id}`).classList.toggle("chosen", quantity > 0);
  }
  const shown = lines().map((line) => make("li", {}, make("span", {}, `${line.quantity} × ${line.name}`), make("span", {}, money(line.cents * line.quantity))));
  $("cart").replaceChildren(...(shown.length ? shown : [make("li", { className: "quiet" }, "Nothing yet")]));
  $("total").textContent = money(total());
  show($("agreed"), outcome().less && total() ? `You agree to pay ${money(agreed())}.` : "");
  $("pay-button").disabled = paying || total() === 0;
  $("pay-button").textContent = paying ? "Sending…" : total() ? `Pay ${money(agreed())}` : "Pay";
}

function drawOutcomes() {
  $("outcomes").replaceChildren(...OUTCOMES.map((one, index) => make("label", {},
    make("input", { type: "radio", name: "outcome", value: index, checked: index === 0 }),
    make("b", {}, one.label), make("small", {}, one.hint))));
}

// --- paying -----------------------------------------------------------------------------------

let paying = false;

async function pay(event) {
  event.preventDefault();
  if (paying || total() === 0) return;
  clearFaults();
  const chosen = outcome();
  const checkout = {
    cart_items: lines().map(({ product_id, quantity }) => ({ product_id, quantity })),
    payment_info: { token: chosen.token, amount: agreed() / 100 },
    customer_info: { email: chosen.email || $("email").value.trim(), name: $("name").value.trim() },
  };
  purchase ||= newKey();
  paying = true;
  drawCart();
  try {
    // The key makes it safe to ask again when nobody knows whether the shop heard the first time.
    const answer = await persist(() => fetch("/checkout", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": purchase },
      body: JSON.stringify({ checkout }),
    }));
    const body = await answer.json();
    if (!answer.ok) return explain(body);
    purchase = null;
    remember({ task_id: body.task_id, at: Date.now(), amount: money(total()), label: chosen.label, status: "processing" });
    follow(body.task_id, true);
  } catch {
    show($("problem"), "The shop does not answer. Your cart is safe: press Pay again, you will not pay twice.");
  } finally {
    paying = false;
    drawCart();
  }
}

async function persist(ask) {
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await ask();
      if (answer.status !== 503 || tries === 20) { offline(""); return answer; }
    } catch (error) {
      if (tries === 20) { offline(""); throw error; }
    }
    offline("The shop does not answer, trying again…");
    await pause(1500);
  }
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function explain(body) {
  earlier(true);
  let rest = [];
  for (const { path, message } of body.details || []) {
    const field = { "/customer_info/email": "email", "/customer_info/name": "name" }[path];
    if (!field) { rest.push(`${path || "checkout"}: ${message}`); continue; }
    show($(`${field}-fault`), message);
    $(field).setAttribute("aria-invalid", "true");
    $(field).focus();
  }
  if (rest.length || !body.details) show($("problem"), [body.error, ...rest].join(" · "));
}

function clearFaults() {
  show($("problem"), "");
  for (const field of ["name", "email"]) { show($(`${field}-fault`), ""); $(field).removeAttribute("aria-invalid"); }
}

const offline = (text) => show($("connection"), text);

// --- following an order -----------------------------------------------------------------------

let source = null;
let watched = null; // { id, order, skew, jump }
let told = "";

function follow(id, jump) {
  if (!UUID.test(id)) return;
  source?.close();
  watched = { id, order: null, skew: 0, jump };
  told = "";
  $("order").hidden = false;
  earlier(false);
  $("steps").replaceChildren();
  $("outcome").hidden = true;
  $("order-state").textContent = "";
  $("details-link").href = `/workflow_details/${id}`;
  listen(id);
}

/** An order that is shown beside a cart that was refused is not that cart's. */
function earlier(is) {
  $("order").classList.toggle("earlier", is);
  $("order-title").textContent = is ? "Your previous order" : "Your order";
}

function listen(id) {
  const stream = source = new EventSource(`/order_status/${id}/events`);
  stream.onopen = () => offline("");
  stream.onmessage = (message) => {
    if (watched?.id !== id) return;
    offline("");
    const { now, order } = JSON.parse(message.data);
    watched = { ...watched, order, skew: Date.parse(now) - Date.now() };
    drawOrder();
    if (watched.jump) bringIntoView();
    if (order.status === "processing") return;
    if (!$("order").classList.contains("earlier")) $("outcome").scrollIntoView({ block: "nearest" });
    stream.close();
    loadProducts().catch(() => {});
    refreshRecent();
  };
  stream.onerror = async () => {
    if (watched?.id !== id || source !== stream) return;
    offline("The shop does not answer. Your order is safe, waiting for it…");
    if (stream.readyState !== EventSource.CLOSED) return; // the browser asks again by itself
    const answer = await fetch(`/order_status/${id}`).catch(() => null);
    if (answer?.status === 404) { offline(""); forget(id); $("order").hidden = true; return; }
    await pause(2000);
    if (watched?.id === id && source === stream) listen(id);
  };
}

/** Once the steps are there: before, the panel is too small to be scrolled to. */
function bringIntoView() {
  watched.jump = false;
  const narrow = matchMedia("(max-width: 900px)").matches;
  $("order").scrollIntoView({ block: narrow ? "start" : "nearest" });
  $("order").focus({ preventScroll: true });
}

function drawOrder() {
  const { order } = watched;
  const chip = $("order-state");
  chip.textContent = order.degraded ? "Done, degraded" : order.paused ? "Held up" : order.refunding ? "Being undone"
    : order.resolved ? "Settled" : order.refunded ? "Failed, nothing charged" : STATES[order.status] || order.status;
  chip.className = `chip ${order.degraded || order.paused || order.refunding ? "degraded" : order.status}`;
  $("order-progress").max = order.steps.length;
  $("order-progress").value = order.steps.filter((step) => step.state === "complete").length;
  $("steps").replaceChildren(...order.steps.map(stepItem));
  drawOutcome(order);
  tick();
  announce(order);
  remember({ task_id: order.task_id, status: order.status, number: order.order_number });
}

function stepItem(step, index) {
  const waiting = step.state === "ready" && step.retry_at;
  const running = step.state === "in_progress";
  const kind = waiting ? "waiting" : running ? "running" : step.state;
  const marks = { complete: "✓", resolved_manually: "✓", skipped: "–", error: "✕", waiting: "↻", compensating: "↶", compensated: "↶", running: "" };
  const words = { complete: "done", error: "failed", waiting: "waits for its next attempt", running: "running", ready: "ready", blocked: "not started", cancelled: "cancelled",
    compensating: "being undone", compensated: "undone", skipped: "skipped", resolved_manually: "done by hand" };
  const mark = make("span", { className: "mark" }, marks[kind] ?? String(index + 1));
  mark.setAttribute("aria-hidden", "true");
  const attempt = step.attempts + (running ? 1 : 0);
  // Attempts after somebody pressed Retry have a limit of their own.
  const limit = attempt > step.retry_limit ? "" : ` of ${step.retry_limit}`;
  const count = attempt > 1 || step.failure ? `attempt ${attempt}${limit}`
    : step.state === "complete" && step.took_ms != null ? `${step.took_ms} ms` : "";
  const item = make("li", { className: kind }, mark,
    make("span", { className: "name" }, NAMES[step.name] || step.name, make("span", { className: "unseen" }, `, ${words[kind] || kind}`)),
    make("span", { className: "count" }, count));
  if (step.state === "compensating" || step.state === "compensated") item.append(make("span", { className: "note warn" }, step.state === "compensated" ? "Undone" : "Being undone…"));
  if (step.waits_for_system) item.append(make("span", { className: "note warn" }, "What it depends on is down: it goes on by itself when that is well again. No attempt is lost."));
  else if (step.failure && step.state !== "complete") item.append(make("span", { className: "note bad" }, step.failure));
  else if (running || step.state === "ready") item.append(make("span", { className: "note" }, step.description || ""));
  if (waiting) item.append(Object.assign(make("span", { className: "note warn countdown" }), { retryAt: Date.parse(step.retry_at) }));
  return item;
}

function tick() {
  for (const note of document.querySelectorAll(".countdown")) {
    const left = note.retryAt - (Date.now() + watched.skew);
    note.textContent = left > 0 ? `Next attempt in ${(left / 1000).toFixed(1)} s` : "Next attempt now";
  }
}

function drawOutcome(order) {
  const box = $("outcome");
  box.hidden = order.status === "processing";
  if (order.status === "completed") {
    box.className = "outcome good";
    const link = make("a", { href: order.redirect_url, target: "_blank", rel: "noopener" }, "See the order");
    box.replaceChildren(make("b", {}, "Thank you!"), make("code", {}, order.order_number),
      make("span", {}, `${Number(order.total_amount).toFixed(2)} charged. `, link));
    if (order.degraded) box.append(make("span", {}, "The confirmation could not be sent, so note the number."));
  } else if (order.status === "failed") {
    box.className = "outcome bad";
    const again = make("button", { className: "again", type: "button" }, "Retry");
    again.addEventListener("click", () => retry(order.task_id, again));
    const title = order.failed_step ? `It failed: ${NAMES[order.failed_step] || order.failed_step}` : "The order was called off.";
    box.replaceChildren(make("b", {}, title));
    if (order.failed_step) box.append(make("span", {}, order.error.message), make("span", { className: "quiet" }, order.error.code));
    if (order.refunded) box.append(make("span", {}, "Nothing is charged: whatever was done for it has been undone."));
    if (order.resolved) box.append(make("span", {}, "We have seen to it: we will get in touch."));
    if (order.retry_url) box.append(again);
  } else if (order.status === "cancelled") {
    box.className = "outcome bad";
    box.replaceChildren(make("b", {}, "The order was cancelled."));
  }
}

async function retry(id, button) {
  button.disabled = true;
  try {
    const answer = await persist(() => fetch(`/retry_checkout/${id}`, { method: "POST" }));
    // Somebody else may have been quicker: then there is something to follow as well.
    if (answer.ok || answer.status === 422) return follow(id, true);
  } catch { /* said below */ }
  show($("problem"), "The shop does not answer. Try again in a moment.");
  button.disabled = false;
}

function announce(order) {
  const step = order.steps.find((one) => one.state === "in_progress" || one.retry_at) || {};
  const text = order.status === "completed" ? `Order complete, number ${order.order_number}`
    : order.status === "failed" ? `Order failed: ${order.failed_step ? order.error.message : "it was called off"}`
    : step.retry_at ? `${NAMES[step.name] || step.name}: attempt ${step.attempts} failed, it will be tried again`
    : step.name ? NAMES[step.name] || step.name : "";
  if (text && text !== told) $("announce").textContent = told = text;
}

// --- recent orders ----------------------------------------------------------------------------

function recent() {
  try {
    const kept = JSON.parse(localStorage.getItem(RECENT));
    return Array.isArray(kept) ? kept.filter((one) => UUID.test(one?.task_id)) : [];
  } catch { return []; }
}

function keep(orders) {
  try { localStorage.setItem(RECENT, JSON.stringify(orders.slice(0, 8))); } catch { /* private window */ }
  drawRecent();
}

function remember(order) {
  const orders = recent();
  const known = orders.find((one) => one.task_id === order.task_id);
  // An order that was cleared from the list while it ran stays cleared.
  if (!known && !order.at) return;
  if (known) Object.assign(known, order); else orders.unshift(order);
  keep(orders);
}

const forget = (id) => keep(recent().filter((one) => one.task_id !== id));

function drawRecent() {
  const orders = recent();
  $("recent").hidden = orders.length === 0;
  $("recent-list").replaceChildren(...orders.map((one) => {
    const status = Object.hasOwn(STATES, one.status) ? one.status : "processing";
    const when = new Date(Number(one.at) || Date.now()).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const button = make("button", { type: "button" },
      make("span", {}, one.number || one.label || "Order"),
      make("small", {}, [when, one.amount, one.number ? one.label : ""].filter(Boolean).join(" · ")),
      make("span", { className: `chip ${status}` }, STATES[status]));
    button.addEventListener("click", () => follow(one.task_id, true));
    return make("li", {}, button);
  }));
}

/** Asks about orders that moved on while another one was watched. */
async function refreshRecent() {
  for (const { task_id: id, status } of recent()) {
    if (status !== "processing" || watched?.id === id) continue;
    const answer = await fetch(`/order_status/${id}`).catch(() => null);
    if (answer?.status === 404) forget(id);
    if (!answer?.ok) continue;
    const now = await answer.json();
    remember({ task_id: id, status: now.status, number: now.order_number });
  }
}

// --- start ------------------------------------------------------------------------------------

drawOutcomes();
drawRecent();
$("checkout").addEventListener("submit", pay);
$("checkout").addEventListener("change", () => { purchase = null; drawCart(); });
$("forget").addEventListener("click", () => keep([]));
setInterval(() => { if (watched?.order) tick(); }, 100);
(async () => {
  while (true) {
    try { await loadProducts(); offline(""); break; } catch { offline("The shop does not answer, trying again…"); await pause(1500); }
  }
  const last = recent()[0];
  if (last?.status === "processing") follow(last.task_id, false);
  refreshRecent();
})();
