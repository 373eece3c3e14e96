// A worker that all tabs share: one stream for all of them, since a browser holds six at most to one host.
"use strict";
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
  if (query === watched && source && source.readyState !== EventSource.CLOSED) return;
  source?.close();
  source = null;
  watched = query;
  if (!query) return;
  source = new EventSource(`/api/v1/events?${query}`);
  source.onopen = () => tell({ link: (state = "live") });
  source.onerror = () => {
    tell({ link: (state = "reconnecting") });
    // A refused stream is closed for good; ask again.
    if (source.readyState === EventSource.CLOSED) { watched = ""; setTimeout(open, 2000); }
  };
  source.addEventListener("change", (event) => tell({ revisions: JSON.parse(event.data) }));
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
