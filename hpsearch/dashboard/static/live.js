// A worker that all tabs share: one stream for all of them, since a browser holds six at most to one host.
"use strict";
importScripts("/static/ask.js");
const tabs = new Map(); // port -> the studies that its page shows
let source = null;
let watched = "";
let state = "connecting";

function tell(message, only) {
  for (const port of only ? [only] : tabs.keys()) port.postMessage(message);
}

function open() {
  const studies = [...new Set([...tabs.values()].flat())].sort().slice(0, 50);
  const query = studies.map((name) => `study=${encodeURIComponent(name)}`).join("&");
  if (query === watched && source) return;
  source?.close();
  source = null;
  watched = query;
  if (!query) return;
  const mine = (source = new EventSource(`/api/v1/events?${query}`));
  mine.onopen = () => tell({ link: (state = "live") });
  mine.onerror = () => {
    tell({ link: (state = "lost") });
    if (mine.readyState === EventSource.CLOSED && mine === source) poll(query);
  };
  mine.addEventListener("change", (event) => tell({ revisions: JSON.parse(event.data) }));
}

// A refused stream is closed for good (too many are open, or it needs a login): ask instead, and sometimes for a stream.
async function poll(query) {
  const mine = source;
  let since = "";
  for (let k = 0; k < 10; k++) {
    const found = await ask(query, since);
    if (source !== mine) return; // the pages show something else now
    since = found.since;
    tell({ link: (state = found.link) });
    if (found.revisions) tell({ revisions: found.revisions });
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    if (source !== mine) return;
  }
  watched = "";
  open();
}

onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.watch.length) {
      const fresh = !tabs.has(port);
      tabs.set(port, data.watch);
      // Who comes late is told by a new stream what the others know already.
      if (fresh && source) { watched = ""; }
    } else tabs.delete(port);
    open();
    tell({ link: state }, port);
  };
  port.start();
};
