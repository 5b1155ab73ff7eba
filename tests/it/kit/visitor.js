// Reports what a page of the demo or the console shows, and goes to the page that the answer names.
const faults = [];
const failures = [];
addEventListener("error", (event) => faults.push(event.message ?? "a file was not loaded"), true);
addEventListener("unhandledrejection", ({ reason }) => faults.push(String(reason)));
addEventListener("securitypolicyviolation", ({ blockedURI }) => faults.push("blocked: " + blockedURI));

const all = (selector, node = document) => [...node.querySelectorAll(selector)];
const count = (selector) => all(selector).length;
const text = ({ textContent }) => textContent;

// The texts of a row as a screen reader gets them, and then as its flaps show them.
const textsOf = (row) => [
  ...all(".spoken", row).map(text),
  ...all(".flaps", row).map((flaps) => all(".flap", flaps).map(({ dataset }) => dataset.top).join("")),
];

async function report() {
  const seen = window.headwater ?? {};
  const counts = Object.values(seen.channels ?? {});
  const shown = {
    path: location.pathname,
    status: document.getElementById("status")?.textContent ?? "",
    rows: count("#board tr:not([hidden]), #prices li, #jobs li, #messages li, #channels tr, #events li"),
    board: all("#board tr:not([hidden])").map(textsOf),
    prices: all("#prices li").map((tile) => [".label", ".price"].map((part) => text(tile.querySelector(part)))),
    events: counts.reduce((sum, { events }) => sum + events, 0),
    ids: counts.flatMap(({ ids }) => ids),
    missing: seen.missing ?? 0,
    repeated: seen.repeated ?? 0,
    faults,
    failures,
  };
  const answer = await fetch("/visitor", { method: "POST", body: JSON.stringify(shown) });
  if (!answer.ok) throw new Error("HTTP " + answer.status);
  return answer.text();
}

// A report can fail, such as when it is sent over a connection that has just been closed. The next
// one has the same news, and also says how many have failed.
async function reportForEver() {
  const next = await report().catch((error) => failures.push(String(error)) && location.pathname);
  if (next.split("?")[0] != location.pathname) location.assign(next);
  else setTimeout(reportForEver, 200);
}
addEventListener("load", reportForEver);
