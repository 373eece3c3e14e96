// Asking what has changed, for who has no stream. Gives {link, since, revisions}: no revisions where nothing has changed.
"use strict";
const EVERY_MS = 3000;
async function ask(query, since) {
  try {
    const answer = await fetch(`/api/v1/changes?${query}&since=${since}`);
    if (!answer.ok) return { link: "lost", since };
    if (answer.status === 204) return { link: "live", since };
    const { id, revisions } = await answer.json();
    return { link: "live", since: id, revisions };
  } catch {
    return { link: "lost", since };
  }
}
