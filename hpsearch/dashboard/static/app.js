// Draws pictures when they come into sight, copies, and answers keys. What keeps a page live is in follow.js.
"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function say(text) {
  const box = $("#said");
  box.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => (box.textContent = ""), 4000);
}

// --- pictures -------------------------------------------------------------------------------------------------------
let plotly;
function library() {
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly-cartesian.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("the drawing library did not load"));
    document.head.append(script);
  });
  return plotly;
}

const slim = (figure) => figure.clientWidth > 0 && figure.clientWidth < 460;
function address(figure, more) {
  const url = new URL(figure.dataset.figure, location.href);
  url.searchParams.set("theme", dark() ? "dark" : "light");
  if (slim(figure)) url.searchParams.set("narrow", "true");
  for (const [key, value] of Object.entries(more || {})) url.searchParams.set(key, value);
  return url;
}

const turns = new WeakMap(); // figure -> how often it was asked for: an answer that was overtaken is not drawn
const asked = new WeakSet(); // figures that need not be asked for once more
const answering = new WeakSet(); // figures that answer the mouse
async function draw(figure) {
  const card = figure.closest(".card");
  const sentence = $(".sentence", card);
  const turn = (turns.get(figure) || 0) + 1;
  turns.set(figure, turn);
  asked.add(figure);
  sight.unobserve(figure);
  try {
    const answer = await fetch(address(figure));
    const found = await answer.json();
    if (turns.get(figure) !== turn) return;
    if (!answer.ok) throw new Error(found.detail || answer.statusText);
    sentence.textContent = [found.sentence, found.note].filter(Boolean).join(" ");
    if (found.again) return void setTimeout(() => figure.isConnected && turns.get(figure) === turn && draw(figure), 1000 * found.again);
    card.classList.toggle("empty", !found.shown);
    if (!found.shown) {
      if (window.Plotly) window.Plotly.purge(figure);
      answering.delete(figure);
      figure.replaceChildren();
      figure.classList.remove("waiting");
      figure.dataset.drawn = "none";
      return;
    }
    const Plotly = await library();
    figure.setAttribute("aria-label", sentence.textContent);
    figure.dataset.slim = slim(figure);
    const config = { responsive: false, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "toImage"] };
    await Plotly.react(figure, { data: found.data, layout: { ...found.layout, autosize: true }, config });
    if (!answering.has(figure)) {
      answering.add(figure);
      figure.on("plotly_click", ({ points }) => follow(points[0]));
      figure.on("plotly_hover", ({ points }) => light(numberOf(points[0]), figure));
      figure.on("plotly_unhover", () => light(null, figure));
    }
    figure.classList.remove("waiting");
    figure.dataset.drawn = "yes";
  } catch (error) {
    sentence.textContent = `This picture could not be drawn: ${error.message}`;
    figure.dataset.drawn = "failed";
  }
}

// A mark whose text begins with a trial's number leads to it.
function follow(point) {
  const number = numberOf(point);
  if (number && document.body.dataset.study) go(`t/${number}`);
}
const numberOf = (point) => /^#(\d+)\b/.exec(point?.text || point?.data?.name || "")?.[1];

// The trial under the mouse, wherever it is: its rows, and its marks in the other pictures.
function light(number, source) {
  if ((light.now ?? null) === (number ?? null)) return;
  light.now = number;
  for (const row of $$("tr[data-trial]")) row.classList.toggle("lit", row.dataset.trial === number);
  for (const figure of $$("figure[data-drawn=yes]")) {
    if (figure === source || !figure.offsetParent || !figure._fullLayout?.xaxis) continue;
    const marks = number ? figure.data.flatMap((trace, curveNumber) => {
      const line = trace.hoverinfo !== "skip" && numberOf({ text: trace.name }) === number;
      const pointNumber = line ? trace.x.length - 1 : Array.isArray(trace.text) ? trace.text.findIndex((text) => numberOf({ text }) === number) : -1;
      const subplot = `${trace.xaxis || "x"}${trace.yaxis || "y"}`;
      return pointNumber < 0 || trace.visible === "legendonly" ? [] : [{ curveNumber, pointNumber, subplot }];
    }) : [];
    window.Plotly.Fx.hover(figure, marks.slice(0, 1), marks[0]?.subplot ?? "xy");
  }
}
document.addEventListener("mouseover", (event) => light(event.target.closest("tr[data-trial]")?.dataset.trial ?? (event.target.closest("figure") ? light.now : null)));
// To another page of the study; what the reader filters by goes along.
function go(page, query = {}) {
  const url = new URL(`/s/${encodeURIComponent(document.body.dataset.study)}/${page}`, location.href);
  for (const [name, text] of Object.entries(query)) url.searchParams.append(name, text);
  for (const [name, text] of new URLSearchParams(location.search)) {
    if (name === "where" || name === "state") url.searchParams.append(name, text);
  }
  location.href = url;
}

const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    draw(target);
  }
}, { rootMargin: "300px" });
const sizes = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    if (target.dataset.drawn !== "yes" || !target.offsetParent) continue;
    window.Plotly.Plots.resize(target);
    if (target.dataset.slim !== String(slim(target))) draw(target);
  }
});

const known = new WeakSet();
function pictures() {
  for (const figure of $$("figure[data-figure]")) {
    if (known.has(figure)) continue;
    known.add(figure);
    figure.classList.add("waiting");
    sight.observe(figure);
    sizes.observe(figure);
  }
  later();
}
const drawn = () => $$("figure[data-drawn]");
const pending = () => $$("figure[data-figure]:not([data-drawn])");
addEventListener("beforeprint", () => pending().forEach(draw));

// All drawn pictures anew: at once those in sight, the others when they come into sight or there is time.
async function redraw() {
  const far = (figure) => { const { top, bottom } = figure.getBoundingClientRect(); return bottom < -300 || top > innerHeight + 300; };
  const [away, near] = [drawn().filter(far), drawn().filter((figure) => !far(figure))];
  for (const figure of away) {
    delete figure.dataset.drawn;
    turns.set(figure, turns.get(figure) + 1);
    asked.delete(figure);
    sight.observe(figure);
  }
  for (const figure of near) await draw(figure);
  later();
}

// A page is printed as a whole, and a printer waits for nothing: so what is further down is drawn before, one by one.
function later() {
  clearTimeout(later.timer);
  const timer = (later.timer = setTimeout(async () => {
    for (const figure of pending()) {
      await new Promise((resolve) => (window.requestIdleCallback ? requestIdleCallback(resolve, { timeout: 1000 }) : setTimeout(resolve, 200)));
      if (later.timer !== timer) return;
      if (!asked.has(figure) && figure.isConnected) await draw(figure);
    }
  }, 1000));
}

// On paper, which is white: with the colours of the light theme, when every picture is there.
async function prints() {
  const theme = document.documentElement.dataset.theme;
  const were = dark();
  document.documentElement.dataset.theme = "light";
  say("drawing all pictures …");
  await Promise.all((were ? $$("figure[data-figure]") : pending()).map(draw));
  while (pending().length) await new Promise((resolve) => setTimeout(resolve, 100));
  print();
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  if (were) drawn().forEach(draw);
}

// The picture as a file, with a ground of its own: a page's colours are not there where it is shown.
async function save(button) {
  const figure = $("figure", button.closest(".card"));
  if (figure.dataset.drawn !== "yes" || figure.hidden) return say("there is no picture to save");
  const ground = getComputedStyle(button.closest(".card")).backgroundColor;
  const { data, layout } = figure;
  const { clientWidth: width, clientHeight: height } = figure;
  const picture = { data, layout: { ...layout, paper_bgcolor: ground } };
  await window.Plotly.downloadImage(picture, { format: "svg", width, height, filename: button.dataset.name });
}

async function table(button) {
  const card = button.closest(".card");
  const figure = $("figure", card);
  const old = $(".astablebox", card);
  button.setAttribute("aria-pressed", String(!old));
  if (old) { old.remove(); figure.hidden = false; return; }
  const found = await (await fetch(address(figure, { format: "table" }))).json();
  if (found.again) return say(found.sentence);
  const box = document.createElement("div");
  box.className = "scroll astablebox";
  box.tabIndex = 0;
  const made = box.appendChild(document.createElement("table"));
  const head = made.createTHead().insertRow();
  for (const word of found.heads || []) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = word;
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of found.rows || []) {
    const line = body.insertRow();
    for (const value of row) line.insertCell().textContent = typeof value === "number" ? Number(value.toPrecision(6)) : value ?? "";
  }
  figure.hidden = true;
  figure.after(box);
}

// --- colours ----------------------------------------------------------------------------------------------------------
$("#theme").addEventListener("click", () => {
  const next = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  document.cookie = `theme=${next}; path=/; max-age=31536000; SameSite=Strict`;
  drawn().forEach(draw);
});

// --- copying --------------------------------------------------------------------------------------------------------
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
  } catch {
    say(text); // a page without https or permission: it can still be read and marked
  }
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy !== undefined) copy(button.dataset.copy);
  else if (button.dataset.copyLink !== undefined) copy(location.href);
  else if (button.classList.contains("astable")) table(button);
  else if (button.classList.contains("assvg")) save(button);
  else if (button.dataset.print !== undefined) prints();
  else if (button.id === "help") $("#keys").showModal();
});

// --- rows that are chosen: in the address, so that a copied link, the next page and a filter keep them -------------
const rows = () => $$("table.rows tbody tr[data-href]");
const nameOf = (row) => row.dataset.trial ?? row.dataset.name;
const chosen = new Set(new URLSearchParams(location.search).getAll("selected"));
let here = null; // the name of the row that keys act on

function mark() {
  for (const row of rows()) {
    const [name, box] = [nameOf(row), $("input[type=checkbox]", row)];
    row.classList.toggle("here", name === here);
    row.classList.toggle("lit", Boolean(light.now) && row.dataset.trial === light.now);
    if (chosen.has(name)) row.setAttribute("aria-selected", "true");
    else row.removeAttribute("aria-selected");
    if (box) box.checked = chosen.has(name);
  }
}
function rewrite(change) {
  const url = new URL(location.href);
  change(url.searchParams);
  history.replaceState(history.state, "", url);
}
function write(query) {
  query.delete("selected");
  for (const name of chosen) query.append("selected", name);
}
function choose(name, on) {
  on ? chosen.add(name) : chosen.delete(name);
  rewrite(write);
  mark();
  say(`${chosen.size} selected`);
}
document.addEventListener("change", ({ target }) => {
  const row = target.closest("tr[data-href]");
  if (row && target.type === "checkbox") choose(nameOf(row), target.checked);
});
for (const click of ["click", "auxclick"]) document.addEventListener(click, ({ target }) => {
  const link = target.closest("a[href^='?']");
  if (!link || !chosen.size) return;
  const url = new URL(link.href);
  write(url.searchParams);
  link.setAttribute("href", url.search);
}, true);
document.addEventListener("formdata", ({ target, formData }) => {
  const to = target.id === "compare" ? $("input[form=compare]")?.name : "selected";
  if (target.method !== "get" || !to || (to === "selected" && new URL(target.action).pathname !== location.pathname)) return;
  formData.delete(to);
  for (const name of chosen) formData.append(to, name);
});
// What a form has done is said once, and not to whoever gets the link.
if (new URLSearchParams(location.search).has("done")) rewrite((query) => query.delete("done"));

// --- keys -------------------------------------------------------------------------------------------------------------
function step(by) {
  const all = rows();
  if (!all.length) return;
  const now = all.findIndex((row) => nameOf(row) === here);
  const next = all[Math.min(Math.max(now + by, 0), all.length - 1)];
  here = nameOf(next);
  mark();
  next.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
  say(next.dataset.trial ? `trial ${here}` : here);
}
function compare() {
  if (chosen.size < 2) return say("select two with x first");
  if (!document.body.dataset.study) return $("#compare")?.requestSubmit();
  const [a, b] = [...chosen];
  go("compare", { a, b });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("dialog[open]")) return;
  const field = event.target.closest("input, select, textarea");
  if (field) return void (event.key === "Escape" && field.blur());
  const row = rows().find((one) => nameOf(one) === here);
  if (event.key === "/") { event.preventDefault(); $(".filters :is(input:not([type=hidden]), select)")?.focus(); }
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "Enter" && row && event.target === document.body) location.href = row.dataset.href;
  else if (event.key === "x" && row) choose(here, !chosen.has(here));
  else if (event.key === "c") compare();
  else if (event.key === "?") $("#keys").showModal();
});

$("header [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
pictures();
mark();
