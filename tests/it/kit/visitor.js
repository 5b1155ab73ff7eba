// Reports what a page of the demo or the console shows, and goes to the page that the answer names.
const faults = [];
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
  };
  const answer = await fetch("/visitor", { method: "POST", body: JSON.stringify(shown) });
  const next = await answer.text();
  if (next.split("?")[0] != location.pathname) location.assign(next);
  else setTimeout(report, 200);
}
addEventListener("load", report);
