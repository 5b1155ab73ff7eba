// The parser of server-sent events, and the reader of cursors.

import test from "node:test";
import assert from "node:assert/strict";
import { createParser } from "../../src/client_js/headwater.js";
import { covers, ordered, positionsOf } from "../../src/client_js/cursor.js";

/** The blocks with data, and the last `retry`. */
function parse(...chunks) {
  let retry;
  const parser = createParser((value) => (retry = value));
  const blocks = chunks.flatMap((chunk) => parser(chunk));
  return { blocks: blocks.filter(({ data }) => data !== undefined), all: blocks, retry };
}

test("a block has the fields of the standard", () => {
  const { blocks, retry } = parse(
    "retry: 3000\nevent: price\nid: 5-0\ndata: a\ndata:b\ndata:  c\ndata\n\n",
  );
  assert.deepEqual(blocks, [{ type: "price", id: "5-0", data: "a\nb\n c\n" }]);
  assert.equal(retry, 3000);
});

test("lines end in CR, LF or CRLF", () => {
  for (const end of ["\n", "\r", "\r\n"]) {
    const text = ["data: a", "data: b", "", "data: c", "", ""].join(end);
    assert.deepEqual(parse(text).blocks, [{ data: "a\nb" }, { data: "c" }], JSON.stringify(end));
  }
});

test("a block that a CR completes does not wait for the next chunk", () => {
  assert.deepEqual(parse("data: a\r\r").blocks, [{ data: "a" }]);
});

test("chunks may end anywhere", () => {
  const text =
    ": c\r\nid: 1-0\rdata: a\r\ndata: b\n\n\r\nevent: x\rdata: 😀\r\r:\nretry: 12\n\ndata: end\n\n";
  const whole = parse(text);
  for (let first = 0; first <= text.length; first++) {
    for (let second = first; second <= text.length; second++) {
      const chunks = [text.slice(0, first), text.slice(first, second), "", text.slice(second)];
      const { blocks, retry } = parse(...chunks);
      assert.deepEqual(
        { blocks, retry },
        { blocks: whole.blocks, retry: 12 },
        JSON.stringify(chunks),
      );
    }
  }
  assert.equal(whole.blocks.length, 3);
});

test("comments, unknown fields and wrong values are ignored", () => {
  const { blocks, retry } = parse(
    ":\n: data: x\nretry: 1s\nretry:\nfoo: bar\nid: a\0b\ndata: y\n\n",
  );
  assert.deepEqual(blocks, [{ data: "y" }]);
  assert.equal(retry, undefined);
});

test("a block without data sets the id only, and a block without an end is dropped", () => {
  const { blocks, all } = parse("id: 7-0\n\ndata: cut");
  assert.deepEqual(blocks, []);
  assert.deepEqual(all, [{ id: "7-0" }]);
});

test("data may contain colons, and names may contain spaces", () => {
  assert.deepEqual(parse('data: {"a":"b: c"}\n\ndata : no\n\n').blocks, [{ data: '{"a":"b: c"}' }]);
});

// protocol §3.1
test("the positions of a cursor are read in both forms", () => {
  assert.deepEqual(positionsOf("5-0", 1), ["5-0"]);
  assert.deepEqual(positionsOf("5-0_17-2.1795278420000", 2), ["5-0", "17-2"]);
  assert.deepEqual(positionsOf("0-0", 3), ["0-0", "0-0", "0-0"]);
  assert.deepEqual(positionsOf(".1795278400903_0_193-2_", 3), [
    "1795278400903-0",
    "1795278400710-2",
    "0-0",
  ]);
  assert.deepEqual(positionsOf(".1795278400903_0_193-2.1795278420000", 2), [
    "1795278400903-0",
    "1795278400710-2",
  ]);
  for (const text of ["", "5", "5-0_6-0", "x-0", "5-0.1.2", "5-0.x"]) {
    assert.equal(positionsOf(text, 1), undefined, text);
  }
});

test("ids are compared as numbers", () => {
  assert.ok(ordered("9-0") < ordered("10-0"));
  assert.ok(ordered("10-9") < ordered("10-10"));
  assert.ok(covers("10-10_5-0", "10-9_5-0.1795278420000", 2));
  assert.ok(!covers("10-10_5-0", "10-9_5-1", 2));
  assert.ok(!covers("", "5-0", 1));
});
