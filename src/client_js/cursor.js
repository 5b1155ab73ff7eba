// Reads cursors (3.1). A client treats them as opaque where it can; the modules that read the
// history, share a connection or use a WebSocket have to know the position of each channel.

/** A text for a position. The texts of two positions compare as the positions do. */
export const ordered = (id) => id.replace(/\d+/g, (digits) => digits.padStart(20, "0"));

/**
 * The positions of a cursor, one for each of `count` channels. The result is `undefined` for a text
 * that has another number of positions, or another syntax.
 */
export function positionsOf(cursor, count) {
  if (cursor == "0-0") return Array(count).fill(cursor);
  const isShort = cursor.startsWith(".");
  const [list, mark, ...more] = (isShort ? cursor.slice(1) : cursor).split(".");
  if (more.length || !/^\d*$/.test(mark ?? "")) return undefined;
  const positions = isShort ? positionsOfDistances(list.split("_")) : list.split("_");
  const isRight = positions.length == count && positions.every((text) => /^\d+-\d+$/.test(text));
  return isRight ? positions : undefined;
}

/** The short form has the newest time, and for each position how long before it that was. */
function positionsOfDistances([newest, ...distances]) {
  return distances.map((distance) => {
    if (!distance) return "0-0";
    const [back, number = "0"] = distance.split("-");
    return `${newest - back}-${number}`;
  });
}

/** Whether everything up to the cursor `other` was also received at the cursor `cursor`. */
export function covers(cursor, other, count) {
  if (cursor == other) return true;
  const [mine, theirs] = [positionsOf(cursor, count), positionsOf(other, count)];
  return !!mine && !!theirs && mine.every((id, index) => ordered(id) >= ordered(theirs[index]));
}
