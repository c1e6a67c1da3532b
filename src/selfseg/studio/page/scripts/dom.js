// Making elements. Whatever a person typed becomes text, never markup.

/** An element: h("button", {class: "primary", onclick: f, "aria-label": "x", style: {"--share": .5}}, "text", child). */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, each] of Object.entries(value)) element.style.setProperty(name, each);
    else if (key === "value" || key === "checked" || key === "selected" || key === "disabled") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Put children in the place of what is there. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

/** Text that a person typed, in its own direction. */
export function typed(text, props) {
  return h("bdi", props, text);
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  undo: "M9 7H4V2M4.500 7A8 8 0 1 1 4 14",
  redo: "M15 7h5V2M19.500 7A8 8 0 1 0 20 14",
  concepts: "M3 3h8v8H3zM13 3h8v8h-8zM3 13h8v8H3zM13 13h8v8h-8z",
  images: "M3 4h18v16H3zM3 17l6-6 5 5 3-3 4 4M16 8.500h.01",
  next: "M12 3a9 9 0 1 0 9 9M12 7v5l4 2M17 3h4v4",
  audit: "M4 12l5 5L20 6",
  handover: "M12 3v12M7 10l5 5 5-5M4 20h16",
  sun: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM12 1v2M12 21v2M1 12h2M21 12h2M4.200 4.200l1.400 1.400M18.400 18.400l1.400 1.400M4.200 19.800l1.400-1.400M18.400 5.600l1.400-1.400",
  moon: "M20 14A8.500 8.500 0 0 1 10 4a8.500 8.500 0 1 0 10 10z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  help: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 18h.01",
  close: "M5 5l14 14M19 5L5 19",
  edit: "M4 20l1-5L16 4l4 4L9 19zM14 6l4 4",
  split: "M12 3v6M12 9l-7 7v5M12 9l7 7v5",
  join: "M5 3v5l7 7v6M19 3v5l-7 7",
  out: "M5 5l14 14M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18z",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  erase: "M8 20h12M4 15L14 5l6 6-8 8H8z",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  print: "M7 8V3h10v5M7 17H4V9h16v8h-3M7 14h10v7H7z",
  file: "M6 2h9l4 4v16H6zM14 2v5h5",
};

/** A line drawing that says nothing to a screen reader: what it is on has a label. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  drawing.append(path);
  return drawing;
}

const LONGEST_PRESS = 1500; // ms; a release outside the window, or over an open list, is never heard of
let pressed = -Infinity; // when
for (const name of ["pointerdown", "pointerup", "pointercancel"]) {
  addEventListener(name, () => (pressed = name === "pointerdown" ? performance.now() : -Infinity), {capture: true});
}

/** Fulfilled when no button of the mouse is down: an element that is redrawn in between swallows the click. */
export async function afterPress() {
  while (performance.now() - pressed < LONGEST_PRESS) await new Promise((wake) => setTimeout(wake, 15));
}

/** Whether keys belong to what is focused, as in a text field. */
export function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  const field = target.closest("input, textarea, select, [contenteditable]");
  return field !== null && !["checkbox", "radio", "range", "color", "button"].includes(field.type);
}
