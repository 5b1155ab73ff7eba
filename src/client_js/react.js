// A hook for React: `const { state, status } = useHeadwater("https://live.example.com", ["a"])`.

import { useEffect, useState } from "react";
import { connect } from "./headwater.js";

const RENDER_MS = 50;

const NOTHING = { status: "connecting", state: new Map() };

export function useHeadwater(url, channels, options) {
  // The view of other channels is not shown while these connect. A `URL` is another object each time.
  const source = `${url} ${channels}`;
  const [[shown, view], setView] = useState([]);
  useEffect(() => {
    const client = connect(url, { ...options, channels, state: true });
    let timer;
    const render = () => {
      timer = undefined;
      setView([source, { status: client.status, state: new Map(client.state), client }]);
    };
    // Events that come close together lead to one rendering.
    const change = () => (timer ??= setTimeout(render, RENDER_MS));
    const read = async () => {
      for await (const _event of client) change();
    };
    read().catch(change);
    for (const type of ["status", "state"]) client.addEventListener(type, change);
    return () => {
      client.close();
      clearTimeout(timer);
    };
  }, [source]);
  return shown == source ? view : NOTHING;
}
