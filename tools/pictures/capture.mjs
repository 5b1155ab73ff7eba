// Takes the pictures of the animation: the departures board while its flaps turn, and the drawing of
// the overview without and with a cache. `frames.json` has their files, and how long each is shown.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openBrowser } from "../../tests/stranger/browser.mjs";

const [, , directory, origin, cache] = process.argv;
const SIZE = { width: 960, height: 540, deviceScaleFactor: 1, mobile: false };
const BOARD_FRAMES = 34;
const BOARD_MS = 160;
const DRAWING_MS = 2600;

const frames = [];
// The height of all frames is that of the board.
let height;
const browser = await openBrowser();

async function picture(selector, ms) {
  const box = await browser.run(`const { y, height } =
    document.querySelector(${JSON.stringify(selector)}).getBoundingClientRect();
    return { x: 0, y: y + scrollY, width: innerWidth, height, scale: 1 };`);
  box.height = height ??= Math.ceil(box.height);
  const wanted = { format: "png", captureBeyondViewport: true, clip: box };
  const { data } = await browser.devtools("Page.captureScreenshot", wanted);
  const file = join(directory, `${frames.length}.png`);
  writeFileSync(file, Buffer.from(data, "base64"));
  frames.push({ file, ms });
}

try {
  await browser.devtools("Emulation.setDeviceMetricsOverride", SIZE);
  const theme = [{ name: "prefers-color-scheme", value: "dark" }];
  await browser.devtools("Emulation.setEmulatedMedia", { features: theme });

  await browser.open(`${cache}/demo/departures`);
  await browser.waitFor("document.querySelector('#board tr:nth-child(14):not([hidden])')");
  // The flaps of the first board have turned.
  await browser.waitFor("!document.querySelector('.flap:not([data-phase=\"0\"])')");
  for (let frame = 0; frame < BOARD_FRAMES; frame++) {
    const next = new Promise((wake) => setTimeout(wake, BOARD_MS));
    await picture(".board", BOARD_MS);
    await next;
  }

  for (const [url, counted] of [[origin, "100 origin requests"], [cache, "1 origin request."]]) {
    await browser.open(`${url}/`);
    await browser.waitFor("document.body.dataset.status == 'live'");
    // The boards above the drawing have their height.
    for (const board of ["#board tr:nth-child(8):not([hidden])", "#prices li:nth-child(4)", "#messages li", "#jobs li"]) {
      await browser.waitFor(`document.querySelector('${board}')`);
    }
    // Behind the cache the page asks by itself.
    if (url == origin) await browser.run("document.querySelector('#ask').click()");
    await browser.waitFor(`document.querySelector('#asked').textContent.includes('${counted}')`);
    await picture("[aria-labelledby=share-title]", DRAWING_MS);
  }
  writeFileSync(join(directory, "frames.json"), JSON.stringify(frames));
} finally {
  await browser.close();
}
