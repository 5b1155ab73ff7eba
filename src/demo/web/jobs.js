// Background jobs. The page publishes commands to `jobs.commands`; the worker in the server
// publishes the progress of each job to `jobs`, under a key of its own.

import { byId, make, oncePerFrame, setText } from "./dom.js";
import { STATES } from "./job_states.js";
import { follow } from "./live.js";
import { publish } from "./publish.js";

const COMMANDS = "jobs.commands";

const client = follow(["jobs"]);
const items = new Map();
// The jobs that were started here. Only their ends are announced.
const own = new Set();

const render = oncePerFrame(() => {
  const jobs = [...client.state.entries()].map(([key, data]) => ({ key, ...JSON.parse(data) }));
  jobs.sort((one, other) => other.at - one.at);
  const keys = new Set(jobs.map(({ key }) => key));
  for (const [key, item] of items) {
    if (keys.has(key)) continue;
    item.node.remove();
    items.delete(key);
  }
  jobs.forEach((job, index) => {
    const item = items.get(job.key) ?? add(job);
    if (byId("jobs").children[index] != item.node) {
      byId("jobs").insertBefore(item.node, byId("jobs").children[index] ?? null);
    }
    show(item, job);
  });
  const count = (...wanted) => jobs.filter(({ status }) => wanted.includes(status)).length;
  setText(byId("running"), count("running", "retrying"));
  setText(byId("waiting"), count("waiting"));
});

function add({ key, title }) {
  const state = make("p", { className: "job-state" });
  const bar = make("progress", { "aria-label": title, value: 0 });
  const note = make("p", { className: "small" });
  const retry = make("button", { type: "button", textContent: "Retry", hidden: true });
  retry.setAttribute("aria-label", `Retry: ${title}`);
  retry.onclick = () => command({ retry: key }, `${title} is started again.`);
  const head = make("div", { className: "job-head" }, make("p", { className: "label", textContent: title }), retry);
  const item = { node: make("li", {}, head, state, bar, note), state, bar, note, retry };
  items.set(key, item);
  return item;
}

function show({ node, state, bar, note, retry }, job) {
  const { key, title, status, done, steps, attempt, attempts } = job;
  const step = status == "running" ? `: step ${done + 1} of ${steps}` : "";
  const tries = attempt > 1 ? ` · attempt ${attempt} of ${attempts}` : "";
  const changed = node.dataset.status != status;
  node.dataset.status = status;
  setText(state, STATES[status] + step + tries);
  [bar.max, bar.value] = [steps, done];
  setText(note, job.note);
  retry.hidden = status != "failed";
  if (changed && own.has(key) && /done|failed/.test(status)) {
    setText(byId("started"), `${title}: ${STATES[status]}.`);
  }
}

async function command(data, text) {
  setText(byId("started"), "Sending …");
  try {
    const id = await publish(client, COMMANDS, data);
    own.add(data.retry ?? `job-${id}`);
    setText(byId("started"), text);
  } catch (error) {
    setText(byId("started"), `Not sent: ${error.message}`);
  }
}

byId("start").onsubmit = (event) => {
  event.preventDefault();
  const { value, selectedOptions } = byId("kind");
  command({ start: value }, `${selectedOptions[0].textContent} is started.`);
};
client.onstate = render;
client.onmessage = render;
