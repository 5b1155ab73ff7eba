// Follows a stream and reports all that it sees to where it was loaded from: engine_kit.rs, which
// knows the reports as `Seen`. The stream's URL is the query of its own.
const script = new URL(document.currentScript.src);
const { pathname } = script;
const stream = script.search.slice(1);
const seen = { opened: [], messages: [], segments: [], gaps: [], errors: [], module: [], statuses: [] };
let lastId = "";

function follow(url) {
  const source = new EventSource(url, { withCredentials: pathname.endsWith("credentials") });
  source.onopen = () => seen.opened.push(Date.now());
  const note = (kind, list, what) =>
    source.addEventListener(kind, (message) => {
      lastId = message.lastEventId;
      list.push(what(message));
    });
  note("message", seen.messages, (message) => [message.lastEventId, message.data]);
  note("segment", seen.segments, (message) => JSON.parse(message.data).segment);
  note("gap", seen.gaps, (message) => message.data);
  source.onerror = () => {
    seen.errors.push([Date.now(), source.readyState]);
    // What a page does that must go on whatever happens; the test says whether this may happen.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(follow, 1000, lastId ? `${stream}?after=${lastId}` : stream);
    }
  };
}

// The client module, which the cache serves, beside the native EventSource.
async function followWithModule(url) {
  const { connect } = await import(new URL("/headwater.js", url));
  const client = connect(url);
  client.onmessage = ({ id, data }) => seen.module.push([id, data]);
  client.onstatus = ({ status }) => seen.statuses.push(status);
  client.ongap = ({ reason }) => seen.gaps.push(reason);
}

// Measures the time from each event to the next one, with the client module or a native EventSource.
// An event whose id is of another segment than that of the event before is the first after a boundary.
const SEGMENT_MS = 2000;
const HISTOGRAM_MS = 2000;

async function measure(url, isNative) {
  const pauses = (seen.pauses = { boundaries: [], others: Array(HISTOGRAM_MS).fill(0), events: 0 });
  let last;
  const take = (id) => {
    const [now, time] = [performance.now(), parseInt(id)];
    pauses.first ??= id;
    pauses.last = id;
    pauses.events += 1;
    const pause = now - last?.now;
    const isAcross = Math.floor(time / SEGMENT_MS) != Math.floor(last?.time / SEGMENT_MS);
    if (last && isAcross) pauses.boundaries.push(pause);
    else if (last) pauses.others[Math.min(Math.round(pause), HISTOGRAM_MS - 1)] += 1;
    last = { now, time };
  };
  if (isNative) {
    new EventSource(url).onmessage = ({ lastEventId }) => take(lastEventId);
  } else {
    const { connect } = await import(new URL("/headwater.js", url));
    connect(url).onmessage = ({ id }) => take(id);
  }
}

// One after the other, so that the last to arrive is the newest.
// The next one makes up for one that fails.
async function report() {
  const body = JSON.stringify(seen);
  await fetch(script.origin, { method: "POST", mode: "no-cors", body }).catch(console.warn);
  setTimeout(report, 300);
}

if (pathname.includes("pauses")) measure(stream, pathname.endsWith("native"));
else follow(stream);
if (pathname.endsWith("with-module")) followWithModule(stream);
report();
