// Choosing a class's colour: those that people with colour blindness can tell apart come first.

import {h} from "./dom.js";
import {decide, palette} from "./store.js";

const SAFE = [
  ["#0072b2", "blue"], ["#e69f00", "orange"], ["#009e73", "green"], ["#cc79a7", "pink"], ["#56b4e9", "sky blue"],
  ["#d55e00", "vermilion"], ["#f0e442", "yellow"], ["#005686", "dark blue"], ["#40966d", "sea green"],
  ["#8c4f72", "plum"], ["#a05a00", "brown"], ["#b0b0b0", "light grey"], ["#5a5a5a", "dark grey"], ["#882255", "wine"],
];
const CLOSE = 0.075; // a distance in OKLab that is hard to see in a thin overlay
let open = null;

/** Open the choice of colours below a button. */
export function chooseColour(button, one) {
  const again = open?.button === button;
  open?.close();
  if (again) return;
  const set = (colour) => {
    close();
    button.focus();
    if (colour !== one.colour) decide("/api/colour", {name: one.name, colour}, "The colour");
  };
  const custom = h("input", {type: "color", value: one.colour, "aria-label": "Any other colour"});
  custom.addEventListener("change", () => set(custom.value));
  const taken = new Map(palette().filter((each) => each.name !== one.name).map((each) => [each.colour, each.name]));
  const box = h(
    "div",
    {class: "popover colours", role: "dialog", "aria-label": `Colour of ${one.name}`},
    h(
      "div",
      {class: "swatches"},
      SAFE.map(([colour, name]) =>
        h("button", {
          type: "button",
          class: colour === one.colour ? "swatch chosen" : "swatch",
          style: {"--colour": colour},
          title: taken.has(colour) ? `${name}: the colour of ${taken.get(colour)}` : name,
          "aria-label": taken.has(colour) ? `${name}, the colour of ${taken.get(colour)}` : name,
          "data-taken": taken.has(colour),
          onclick: () => set(colour),
        }),
      ),
    ),
    h("label", {class: "custom"}, "Any other ", custom),
  );
  const outside = (event) => {
    if (!box.contains(event.target) && event.target !== button) close();
  };
  const keys = (event) => {
    if (event.key !== "Escape") return;
    close();
    button.focus();
    event.stopPropagation();
  };
  function close() {
    box.remove();
    document.removeEventListener("pointerdown", outside);
    open = null;
  }
  box.addEventListener("keydown", keys);
  document.addEventListener("pointerdown", outside);
  button.after(box);
  open = {button, close};
  box.querySelector(".chosen, .swatch").focus();
}

/** The class whose colour is hard to tell from another's, for usual eyes or those that miss red or green; or null. */
export function tooClose(one, all) {
  const views = (colour) => [colour, missing(colour, PROTAN), missing(colour, DEUTAN)].map(oklab);
  const own = views(linear(one.colour));
  return (
    all.find((other) => {
      if (other === one || other.name === one.name) return false;
      const theirs = views(linear(other.colour));
      return own.some((lab, i) => Math.hypot(...lab.map((each, j) => each - theirs[i][j])) < CLOSE);
    }) ?? null
  );
}

// Viénot, Brettel and Mollon, "Digital video colourmaps for checking the legibility of displays by dichromats" (1999).
const PROTAN = [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]];
const DEUTAN = [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]];

function missing(rgb, matrix) {
  return matrix.map((row) => Math.min(1, Math.max(0, row.reduce((sum, each, i) => sum + each * rgb[i], 0))));
}

function linear(colour) {
  return [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
}

function oklab([r, g, b]) {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
  ];
}

/** Black or white, whichever is easier to read on a colour. */
export function inkOn(colour) {
  const [r, g, b] = linear(colour);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.3 ? "#000" : "#fff";
}
