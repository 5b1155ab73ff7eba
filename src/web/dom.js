// Small helpers for the elements of a page.

/** How long a button says that the text was copied. */
const COPIED_MS = 2000;

export const byId = (id) => document.getElementById(id);

/** Makes an element with properties (a name with a hyphen is an attribute) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name == "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Changes a text only where it is another one, so that the browser has no work otherwise. */
export function setText(element, text) {
  if (element.textContent != text) element.textContent = text;
}

/** Makes a function that calls `draw` once before the next frame, however often it is called. */
export function oncePerFrame(draw) {
  let isWaiting = false;
  return () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      draw();
    });
  };
}

export const seconds = (ms) => `${Math.max(0, Math.round(ms / 1000))} s`;
export const timeOfDay = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

/** Writes the origin into the commands of the page, and gives each of them a button that copies it. */
export function prepareCommands() {
  for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;
  for (const place of document.querySelectorAll(".host")) place.textContent = location.host;
  addCopyButtons();
}

/** Gives each command of the page a button that copies it. */
export function addCopyButtons() {
  for (const command of document.querySelectorAll("pre.command")) {
    const button = make("button", { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy: ${command.title || "the command"}`);
    button.onclick = () => copy(command, button);
    const frame = make("div", { className: "command-frame" });
    command.replaceWith(frame);
    command.removeAttribute("title");
    frame.append(command, button);
  }
}

async function copy(command, button) {
  try {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
  } catch {
    // Without TLS a page may not write to the clipboard. The visitor copies the selection.
    getSelection().selectAllChildren(command);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
}
