// Opens the pages of a demo at the addresses of README, and pastes what a stranger would paste: the
// snippets of the console into a shell and a page, and README's pages into files of a web server.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { openBrowser } from "./browser.mjs";

const DEMO = "http://127.0.0.1:8080";
const CONSOLE = "http://127.0.0.1:8081/console";
const README = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const STREAM_S = 3;

const browser = await openBrowser();
const say = (text) => console.log(`stranger: ${text}`);
const textOf = (selector) =>
  browser.run(`return document.querySelector(${JSON.stringify(selector)}).textContent`);

/** Checks that the page has no error in its console. The icon of a page is no part of it. */
async function hasNoErrors(name) {
  const errors = await browser.errors();
  assert.deepEqual(errors.filter((error) => !error.includes("/favicon.ico")), [], name);
}

/** What a snippet prints in a shell. A stream goes on until it is stopped. */
function inShell(snippet) {
  const words = ["-s", "KILL", STREAM_S, "bash", "-ec", snippet];
  return new Promise((printed) => {
    execFile("timeout", words, (_, stdout, stderr) => printed(stdout + stderr));
  });
}

/** What a snippet prints in a page of the demo, once that has `enough`. */
async function inPage(snippet, enough) {
  await browser.open(`${DEMO}/`);
  await browser.run(`window.printed = "";
    console.log = (...values) => (window.printed += values.map((one) => JSON.stringify(one)).join(" "));
    (async () => { ${snippet} })();`);
  await browser.waitFor(`window.printed.includes(${JSON.stringify(enough)})`);
  return browser.run("return window.printed");
}

async function openThePages() {
  await browser.open(`${DEMO}/`);
  const links = await browser.run("return [...document.querySelectorAll('nav a')].map(({ href }) => href)");
  assert.ok(links.length >= 5, `${links}`);
  for (const link of links) {
    say(`open ${link}`);
    await browser.open(link);
    await browser.waitFor("document.body.dataset.status == 'live'");
    await browser.waitFor("document.querySelector('.live-part').textContent.trim()");
    await hasNoErrors(link);
  }
}

/** Pastes the three snippets that the console shows, which print `enough`. */
async function pasteTheSnippets(what, enough) {
  const names = ["curl", "browser", "node"];
  const snippets = [];
  for (const name of names) snippets.push(await textOf(`#snippet-${name}`));
  await hasNoErrors(CONSOLE);
  for (const [index, snippet] of snippets.entries()) {
    say(`paste the ${names[index]} snippet: ${what}`);
    const paste = names[index] == "browser" ? inPage : inShell;
    const printed = await paste(snippet, enough);
    assert.ok(printed.includes(enough), `${snippet}\n${printed}`);
  }
  await hasNoErrors(what);
}

async function useTheConsole() {
  say(`open ${CONSOLE}`);
  await browser.open(`${CONSOLE}?channel=ticker`);
  await browser.waitFor("document.querySelector('#events-part').dataset.status == 'live'");
  await pasteTheSnippets("read the ticker", "symbol");
  await browser.open(`${CONSOLE}?channel=greetings`);
  await browser.waitFor("document.querySelector('#events-part').dataset.status == 'live'");
  // With an Idempotency-Key each repetition gets the id of the first publish.
  await browser.run(`document.querySelector("#publish-data").value = "it's a \\"greeting\\"";
    document.querySelector("#publish-idempotency").value = "stranger";
    document.querySelector("#publish-form button").click();`);
  await browser.waitFor("document.querySelector('#answer').dataset.outcome == 'stored'");
  const id = /the id (\S+?)\.?$/.exec(await textOf("#answer"))[1];
  await pasteTheSnippets("publish a greeting", id);
}

/** Opens README's pages from a web server of this machine, with the address of the demo. */
async function openThePagesOfReadme() {
  const pages = README.split("```html\n").slice(1).map((rest) => rest.split("```")[0]);
  assert.equal(pages.length, 2);
  const prices = { method: "POST", body: "1.07" };
  for (const [index, page] of pages.entries()) {
    say(`open page ${index + 1} of README`);
    const server = createServer((_, answer) => {
      answer.setHeader("Content-Type", "text/html; charset=utf-8");
      answer.end(page.replaceAll("https://live.example.com", DEMO));
    });
    await new Promise((listens) => server.listen(3000, "127.0.0.1", listens));
    await browser.open("http://localhost:3000/");
    const publish = setInterval(() => fetch(`${DEMO}/channels/prices?key=EURUSD`, prices), 200);
    await browser.waitFor("document.body.textContent.includes('1.07')");
    clearInterval(publish);
    await hasNoErrors(`page ${index + 1} of README`);
    server.closeAllConnections();
    server.close();
  }
}

try {
  await openThePages();
  await useTheConsole();
  await openThePagesOfReadme();
  say("every command, page and snippet works");
} finally {
  await browser.close();
}
