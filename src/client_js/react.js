// A hook for React: `const { state, status } = useHeadwater("https://live.example.com", ["a"])`.

import { useEffect, useState } from "react";
import { connect } from "./headwater.js";

const RENDER_MS = 50;

export function useHeadwater(url, channels, options) {
  const [view, setView] = useState({ status: "connecting", state: new Map() });
  useEffect(() => {
    const client = connect(url, { ...options, channels, state: true });
    let timer;
    const render = () => {
      timer = undefined;
      setView({ status: client.status, state: new Map(client.state), client });
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
  }, [url, String(channels)]);
  return view;
}
