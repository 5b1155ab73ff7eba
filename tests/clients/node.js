// Follows a stream with one of the SSE libraries of npm until its channel ends, and prints every
// message that the library delivers as a line of JSON. Arguments: the library, the URL.
const [library, url] = process.argv.slice(2);
const show = (id, data) => console.log(JSON.stringify({ id, data }));

// The program has failed when it exits without an `end` event.
process.exitCode = 1;

// For the libraries that have the interface of the browser's own EventSource.
function follow(source) {
  source.addEventListener("message", ({ lastEventId, data }) => show(lastEventId, data));
  source.addEventListener("end", () => {
    source.close();
    process.exitCode = 0;
  });
  return source;
}

const libraries = {
  eventsource2() {
    const EventSource = require("eventsource2");
    follow(new EventSource(url));
  },
  eventsource3() {
    const { EventSource } = require("eventsource3");
    follow(new EventSource(url));
  },
  eventsource4() {
    const { EventSource } = require("eventsource4");
    follow(new EventSource(url));
  },
  "event-source-polyfill"() {
    const { EventSourcePolyfill } = require("event-source-polyfill");
    follow(new EventSourcePolyfill(url));
  },
  "reconnecting-eventsource"() {
    const { default: ReconnectingEventSource } = require("reconnecting-eventsource");
    const { EventSource } = require("eventsource4");
    // The library acts only when the EventSource that it wraps closes for good, as it does in Firefox
    // when a connection is refused. This one closes at every error.
    class Closing extends EventSource {
      set onerror(listener) {
        super.onerror = (event) => {
          this.close();
          listener(event);
        };
      }
    }
    follow(new ReconnectingEventSource(url, { eventSourceClass: Closing }));
  },
  "fetch-event-source"() {
    // The library expects these names of a page.
    globalThis.window = globalThis;
    globalThis.document = { removeEventListener() {} };
    const { fetchEventSource } = require("@microsoft/fetch-event-source");
    const ended = new AbortController();
    fetchEventSource(url, {
      signal: ended.signal,
      openWhenHidden: true,
      onclose() {
        throw new Error("the segment has ended");
      },
      onmessage({ id, event, data }) {
        if (event === "") show(id, data);
        if (event !== "end") return;
        ended.abort();
        process.exitCode = 0;
      },
    });
  },
  undici() {
    const { EventSource } = require("undici");
    // The library's own timer does not keep the process alive until it reconnects.
    const alive = setInterval(() => {}, 1000);
    follow(new EventSource(url)).addEventListener("end", () => clearInterval(alive));
  },
};
libraries[library]();
