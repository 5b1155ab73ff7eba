import type { Headwater, Options, Status } from "./headwater.js";

/**
 * The state of channels, and the status of their connection. The connection is closed with the
 * component, and another one is opened when the URL or the channels change. Later changes of the
 * options have no effect.
 */
export function useHeadwater(
  url: string | URL,
  channels?: string | string[],
  options?: Omit<Options, "channels" | "state">,
): { status: Status; state: Map<string, string>; client?: Headwater };
