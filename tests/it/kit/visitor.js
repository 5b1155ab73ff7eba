// Reports what a page of the demo or the console shows, and goes to the page that the answer names.
const faults = [];
addEventListener("error", (event) => faults.push(event.message ?? "a file was not loaded"), true);
addEventListener("unhandledrejection", ({ reason }) => faults.push(String(reason)));
addEventListener("securitypolicyviolation", ({ blockedURI }) => faults.push("blocked: " + blockedURI));

const count = (selector) => document.querySelectorAll(selector).length;

async function report() {
  const seen = window.headwater ?? {};
  const counts = Object.values(seen.channels ?? {});
  const shown = {
    path: location.pathname,
    status: document.getElementById("status")?.textContent ?? "",
    rows: count("#board tr:not([hidden]), #prices li, #jobs li, #messages li, #channels tr, #events li"),
    events: counts.reduce((sum, { events }) => sum + events, 0),
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
