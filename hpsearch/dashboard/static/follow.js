// Keeps a page as the record is: hears of changes, and puts into the page what has changed in it.
"use strict";
const watching = document.body.dataset.study ? [document.body.dataset.study] : JSON.parse(document.body.dataset.watch || "[]");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const LONGEST_MS = 30000;
let heard = document.body.dataset.revision; // what was said last
let shown = heard; // what this page is at least as new as
let busy = false;

function link(state) {
  const pill = $("#link");
  if (!pill) return;
  pill.hidden = false;
  pill.textContent = { live: "● live", gone: "○ gone" }[state] ?? "○ reconnecting";
}

// What a reader has done to the page stays: the table beside a picture, what is typed, what is folded out.
const touched = (field) =>
  field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
  : field.options ? field.selectedIndex !== Math.max(0, [...field.options].findIndex((one) => one.defaultSelected))
  : field.value !== field.defaultValue;
const ofPicture = (node) => node.matches?.(".card, .card > .sentence") && $("figure[data-figure]", node.closest(".card"));
const keeping = {
  beforeNodeMorphed(node, fresh) {
    if (node.nodeType !== Node.ELEMENT_NODE) return true;
    if (node.matches("figure[data-figure]")) {
      node.dataset.figure = fresh.dataset.figure;
      return false;
    }
    if (node.matches("form :is(input, select, textarea)") && touched(node)) return false;
    return node.id !== "since" && !(node.matches(".sentence") && ofPicture(node));
  },
  beforeNodeRemoved: (node) => !node.matches?.(".astablebox, .done"),
  beforeAttributeUpdated: (name, node) => !["open", "aria-pressed"].includes(name) && !(name === "class" && ofPicture(node)),
};

// The page again, as it is now. Gives whether that went well; null where there is no such page any more.
async function again() {
  const answer = await fetch(location.href, { cache: "no-cache" });
  if (answer.status === 404) return null;
  if (!answer.ok) return false;
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const focused = document.activeElement?.closest("tr[data-href]")?.dataset.href;
  for (const part of ["main", "header [data-live]"]) {
    const [old, fresh] = [$(part), $(part, next)];
    if (old && fresh) Idiomorph.morph(old, fresh, { ignoreActiveValue: true, callbacks: keeping });
  }
  document.title = next.title;
  document.body.dataset.revision = next.body.dataset.revision || "";
  mark();
  visit();
  if (focused && document.activeElement?.closest("tr[data-href]")?.dataset.href !== focused) {
    $(`tr[data-href="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
  }
  pictures();
  await redraw();
  return true;
}

// Until the page is what was said last: a change that comes meanwhile, or an answer that does not, is not the end of it.
async function catchUp() {
  if (busy) return;
  busy = true;
  let wait = 300; // changes that come together are shown together
  while (shown !== heard) {
    await pause(wait);
    const now = heard;
    const well = await again().catch(() => false);
    if (well === false) {
      link("lost");
      wait = Math.min(Math.max(2 * wait, 1000), LONGEST_MS);
      continue;
    }
    shown = document.body.dataset.revision === heard ? heard : now;
    if (well === null || wait > 300) link(well === null ? "gone" : "live");
    wait = 300;
  }
  busy = false;
}

function changed(revisions) {
  if (!watching.every((name) => name in revisions)) return; // of a stream that did not know this page yet
  heard = watching.map((name) => revisions[name]).join(" ");
  if (heard === document.body.dataset.revision) shown = heard;
  catchUp();
}

// Without a shared worker, this page asks for itself.
function poll() {
  const query = watching.map((name) => `study=${encodeURIComponent(name)}`).join("&");
  let since = "";
  setInterval(async () => {
    if (document.hidden) return;
    const found = await ask(query, since);
    since = found.since;
    link(found.link);
    if (found.revisions) changed(found.revisions);
  }, EVERY_MS);
}

function live() {
  if (!watching.length) return;
  if (!window.SharedWorker) return poll();
  const { port } = new SharedWorker("/static/live.js");
  port.onmessage = ({ data }) => (data.link ? link(data.link) : changed(data.revisions));
  const watch = () => port.postMessage({ watch: document.hidden ? [] : watching });
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

visit();
live();
