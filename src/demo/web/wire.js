// Watches the responses that the client module reads, without a change to what it receives: their
// names, when they end, and whether a cache has passed them on.

import { createParser } from "/headwater.js";

/** Makes a `fetch` for the client, which calls `seen.head(headers)` and `seen.block(block)`. */
export function watchedFetch(seen) {
  return async (url, options) => {
    const response = await fetch(url, options);
    const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
    if (!response.ok || !response.body || !isStream) return response;
    seen.head(response.headers);
    const parse = createParser(() => {});
    const decoder = new TextDecoder();
    const watch = new TransformStream({
      transform(chunk, controller) {
        controller.enqueue(chunk);
        for (const block of parse(decoder.decode(chunk, { stream: true }))) seen.block(block);
      },
    });
    return new Response(response.body.pipeThrough(watch), { headers: response.headers });
  };
}

/** The name that the origin gave a response. Clients that share a response see the same name. */
export const nameOf = (headers) => headers.get("headwater-response")?.split(";")[0];

/** The cache that has passed a response on, as far as its headers name it (RFC 9211). */
export function cacheOf(headers) {
  const [named] = headers.get("cache-status")?.split(/[;,]/) ?? [];
  if (named) return named.trim().replace(/^headwater-/, "");
  return headers.get("via") ?? (headers.has("age") ? "yes" : undefined);
}
