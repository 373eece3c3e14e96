// The pages' only script of ours: draws pictures when they come into sight, keeps the page live, and answers keys.
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

async function draw(figure) {
  const card = figure.closest(".card");
  const sentence = $(".sentence", card);
  try {
    const answer = await fetch(address(figure));
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.detail || answer.statusText);
    sentence.textContent = [found.sentence, found.note].filter(Boolean).join(" ");
    if (found.again) return void setTimeout(() => figure.isConnected && draw(figure), 1000 * found.again);
    card.classList.toggle("empty", !found.shown);
    if (!found.shown) {
      if (window.Plotly) window.Plotly.purge(figure);
      figure.replaceChildren();
      figure.classList.remove("waiting");
      figure.dataset.drawn = "none";
      return;
    }
    const Plotly = await library();
    figure.setAttribute("aria-label", sentence.textContent);
    const frames = still.matches ? undefined : found.frames;
    figure.dataset.slim = slim(figure);
    const config = { responsive: false, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "toImage"] };
    await Plotly.react(figure, { data: found.data, layout: { ...found.layout, autosize: true }, config, frames });
    if (figure.dataset.drawn !== "yes") {
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
  if (number && document.body.dataset.study) location.href = `${place()}/t/${number}`;
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
const place = () => `/s/${encodeURIComponent(document.body.dataset.study)}`;

const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
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

function pictures(root = document) {
  for (const figure of $$("figure[data-figure]", root)) {
    figure.classList.add("waiting");
    sight.observe(figure);
    sizes.observe(figure);
  }
}
const drawn = () => $$("figure[data-drawn]");
addEventListener("beforeprint", () => $$("figure[data-figure]:not([data-drawn])").forEach((figure) => { sight.unobserve(figure); draw(figure); }));

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
  else if (button.id === "help") $("#keys").showModal();
});

// --- keys -------------------------------------------------------------------------------------------------------------
const rows = () => $$("table.rows tbody tr[data-trial]");
const chosen = new Set(new URLSearchParams(location.search).getAll("selected"));
function mark() {
  for (const row of rows()) {
    const box = $("input[type=checkbox]", row);
    if (box) box.checked = chosen.has(row.dataset.trial);
  }
}
document.addEventListener("change", (event) => {
  const row = event.target.closest("tr[data-trial]");
  if (row && event.target.type === "checkbox") event.target.checked ? chosen.add(row.dataset.trial) : chosen.delete(row.dataset.trial);
});
function step(by) {
  const all = rows();
  if (!all.length) return;
  const now = all.findIndex((row) => row.classList.contains("here"));
  all[now]?.classList.remove("here");
  const next = all[Math.min(Math.max(now + by, 0), all.length - 1)];
  next.classList.add("here");
  next.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
  say(`trial ${next.dataset.trial}`);
}
function compare() {
  if (chosen.size < 2) return say("select two trials with x first");
  const [a, b] = [...chosen];
  location.href = `${place()}/compare?a=${a}&b=${b}`;
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
  const here = $("tr.here");
  if (event.key === "/") { event.preventDefault(); $(".filters input, .filters select")?.focus(); }
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "Enter" && here && event.target === document.body) location.href = here.dataset.href;
  else if (event.key === "x" && here) {
    const box = $("input[type=checkbox]", here);
    if (box) box.click();
    else chosen.has(here.dataset.trial) ? chosen.delete(here.dataset.trial) : chosen.add(here.dataset.trial);
    say(`${chosen.size} selected`);
  } else if (event.key === "c") compare();
  else if (event.key === "?") $("#keys").showModal();
});

// --- live -------------------------------------------------------------------------------------------------------------
const watching = document.body.dataset.study || document.body.dataset.watch;
let due = false;

function link(state) {
  const pill = $("#link");
  if (!pill) return;
  pill.hidden = false;
  pill.textContent = state === "live" ? "● live" : "○ reconnecting";
}

// The page again, as it is now: what has changed in it is put in, the rest stays as the reader has it.
async function refresh() {
  if (due) return;
  due = true;
  await new Promise((resolve) => setTimeout(resolve, 300));
  try {
    const answer = await fetch(location.href, { cache: "no-cache" });
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement?.closest("tr[data-trial]")?.dataset.trial;
    const here = $("tr.here")?.dataset.trial;
    for (const region of $$("[data-live]")) {
      const fresh = $(`[data-live="${CSS.escape(region.dataset.live)}"]`, next);
      if (!fresh || fresh.innerHTML === region.innerHTML) continue;
      for (const { name, value } of fresh.attributes) region.setAttribute(name, value);
      region.replaceChildren(...[...fresh.childNodes].map((node) => document.adoptNode(node)));
    }
    document.body.dataset.revision = next.body.dataset.revision || "";
    if (here) $(`tr[data-trial="${here}"]`)?.classList.add("here");
    if (focused) $(`tr[data-trial="${focused}"] a`)?.focus({ preventScroll: true });
    mark();
    visit();
    for (const figure of drawn()) await draw(figure);
  } catch {
    link("lost"); // the server is gone; the stream says when it is back, and what was missed
  } finally {
    due = false;
  }
}

function changed(revisions) {
  const now = revisions[watching];
  if (now !== undefined && now !== document.body.dataset.revision) refresh();
}

// Without a shared worker: ask every three seconds.
function poll() {
  let since = "";
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(`/api/v1/changes?study=${encodeURIComponent(watching)}&since=${since}`);
      link("live");
      if (answer.status !== 200) return;
      const found = await answer.json();
      since = found.id;
      changed(found.revisions);
    } catch {
      link("lost");
    }
  }, 3000);
}

function live() {
  if (!watching) return;
  if (!window.SharedWorker) return poll();
  const { port } = new SharedWorker("/static/live.js");
  port.onmessage = ({ data }) => (data.link ? link(data.link) : changed(data.revisions));
  const watch = () => port.postMessage({ watch: document.hidden ? [] : [watching] });
  addEventListener("visibilitychange", watch);
  addEventListener("pagehide", () => port.postMessage({ watch: [] }));
  addEventListener("pageshow", watch);
}

// --- since you last looked -----------------------------------------------------------------------------------------
function visit() {
  const tiles = $("[data-done]");
  const box = $("#since");
  if (!tiles || !box) return;
  const { done, best, failed } = tiles.dataset;
  const key = `seen:${document.body.dataset.study}`;
  visit.last ??= localStorage.getItem(key) || "";
  localStorage.setItem(key, JSON.stringify({ done, best, failed }));
  if (!visit.last) return;
  const last = JSON.parse(visit.last);
  const more = Number(done) - Number(last.done);
  const lost = Number(failed) - Number(last.failed);
  const words = [more > 0 && `${more} more trial${more > 1 ? "s" : ""}`, best !== last.best && last.best && `best ${last.best} → ${best}`, lost > 0 && `${lost} failed`];
  box.textContent = words.some(Boolean) ? `Since you last looked: ${words.filter(Boolean).join(", ")}.` : "";
}

$("header [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
pictures();
mark();
visit();
live();
