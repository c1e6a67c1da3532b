// The page: its five parts, one of which is shown, and what is around them.

import {pending} from "./api.js";
import {Audit} from "./audit.js";
import {Concepts} from "./concepts.js";
import {fill, h, icon, isTyping, typed} from "./dom.js";
import {HandOver} from "./hand_over.js";
import {help} from "./help.js";
import {Images} from "./images.js";
import {Next} from "./next.js";
import {savedNote, startNotices} from "./notices.js";
import {several} from "./numbers.js";
import {decide, start, store, subscribe} from "./store.js";

const PARTS = [
  {key: "concepts", words: "Concepts", short: "Concepts", icon: "concepts", make: () => new Concepts()},
  {key: "images", words: "Images", short: "Images", icon: "images", make: () => new Images()},
  {key: "next", words: "What next?", short: "Next?", icon: "next", make: () => new Next()},
  {key: "audit", words: "How good is it?", short: "Good?", icon: "audit", make: () => new Audit()},
  {key: "hand-over", words: "Hand over", short: "Hand over", icon: "handover", make: () => new HandOver()},
];

const main = document.getElementById("part");
const made = new Map();
let shown = null;

// The parts

function go() {
  const [key, ...rest] = location.hash.slice(1).split("/");
  const part = PARTS.find((each) => each.key === key) ?? PARTS[0];
  if (!made.has(part.key)) made.set(part.key, part.make());
  const view = made.get(part.key);
  if (shown !== view) {
    shown = view;
    fill(main, view.element);
    main.dataset.part = part.key;
    document.title = `${part.words} · selfseg studio`;
    for (const link of document.querySelectorAll("#parts a")) {
      if (link.dataset.part === part.key) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    view.update(store.state);
    scrollTo(0, 0);
  }
  view.open?.(rest);
}

// Around them

function drawParts() {
  fill(
    document.getElementById("parts"),
    PARTS.map((part, place) =>
      h(
        "a",
        {href: `#${part.key}`, "data-part": part.key, title: `${part.words} (Alt ${place + 1})`},
        icon(part.icon),
        h("span", {class: "long"}, h("span", {class: "step"}, String(place + 1)), part.words),
        h("span", {class: "short"}, part.short),
      ),
    ),
  );
}

function drawTop() {
  const undo = h("button", {type: "button", class: "undo", onclick: () => move("undo")}, icon("undo"), h("span", {}));
  const redo = h("button", {type: "button", class: "redo", onclick: () => move("redo")}, icon("redo"));
  const run = h("span", {class: "run"});
  const busy = h("span", {class: "busy", role: "status"});
  const theme = h("button", {type: "button", class: "tool theme", onclick: () => nextTheme(theme)});
  fill(
    document.getElementById("top"),
    run,
    busy,
    savedNote(),
    undo,
    redo,
    theme,
    h("button", {type: "button", class: "tool", "aria-label": "Keys and gestures (?)", title: "Keys and gestures (?)", onclick: help}, icon("help")),
  );
  showTheme(theme);
  subscribe((state) => {
    fill(run, typed(state.run), h("small", {}, several(state.images, "image")));
    busy.textContent = busy.title = state.busy ?? "";
    const label = (button, verb, what, key) => {
      button.disabled = !what;
      const words = what ? `${verb}: ${what} (${key})` : `Nothing to ${verb.toLowerCase()}`;
      button.title = words;
      button.setAttribute("aria-label", words);
    };
    label(undo, "Undo", state.undoes, "Z");
    label(redo, "Redo", state.redoes, "Shift Z");
    fill(undo.lastChild, state.undoes ? ["Undo: ", typed(state.undoes)] : "Undo");
  });
}

function move(verb) {
  const what = verb === "undo" ? store.state?.undoes : store.state?.redoes;
  if (what) decide(`/api/${verb}`, {}, verb === "undo" ? "Undo" : "Redo");
}

// Light and dark

const THEMES = ["auto", "light", "dark"];

function nextTheme(button) {
  const now = document.documentElement.dataset.theme ?? "auto";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("selfseg-theme");
    else localStorage.setItem("selfseg-theme", next);
  } catch {
    // It holds until the page is closed.
  }
  showTheme(button);
}

function showTheme(button) {
  const now = document.documentElement.dataset.theme ?? "auto";
  const words = {auto: "Colours of the system", light: "Light", dark: "Dark"}[now];
  fill(button, icon({auto: "auto", light: "sun", dark: "moon"}[now]));
  button.title = `${words}; press for the next`;
  button.setAttribute("aria-label", `Colours: ${words}`);
}

// Keys

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || isTyping(event.target)) return;
  if (event.key === "?") {
    help();
    return event.preventDefault();
  }
  if (document.querySelector("dialog[open]")) return;
  const digit = event.altKey && !event.ctrlKey && /^Digit([1-5])$/.exec(event.code);
  const plain = !event.altKey && event.key.toLowerCase() === "z";
  if (digit) location.hash = `#${PARTS[Number(digit[1]) - 1].key}`;
  else if (plain) move(event.shiftKey ? "redo" : "undo");
  else if (event.ctrlKey && event.key.toLowerCase() === "y") move("redo");
  else {
    // On a button or a link these keys press it.
    const pressed = event.target instanceof HTMLElement && event.target.closest("button, a, select, summary");
    if (pressed && (event.key === " " || event.key === "Enter")) return;
    if (event.target instanceof HTMLInputElement && event.key.startsWith("Arrow")) return;
    if (!shown?.key?.(event)) return;
  }
  event.preventDefault();
});

// After a press of the mouse the keys belong to the image again: Space is the next image, not the button once more.
document.addEventListener("click", (event) => {
  const button = event.detail > 0 && event.target instanceof Element && event.target.closest(".workbench button");
  if (button && button.matches(".pick, .tool, .answer, .strip-row, .modes button, .queue button")) {
    shown.viewer?.canvas.focus({preventScroll: true});
  }
});

// The last decisions may still be on their way; the browser asks whether to go all the same.
addEventListener("beforeunload", (event) => {
  if (pending()) event.preventDefault();
});

startNotices();
drawParts();
drawTop();
let begun = false;
subscribe((state) => {
  if (begun) shown.update(state);
  else {
    begun = true;
    addEventListener("hashchange", go);
    go();
  }
});
start();
