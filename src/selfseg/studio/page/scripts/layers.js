// What lies over a photograph: predicted classes, how unsure they are, or their edges, a pixel of the map each.

import {NONE} from "./regions.js";

const ERASED = 0xff8a8a8a;
const EDGE = 0xe6ffffff; // white between classes
const GRID = 0x80ffffff; // between segments
const DARK_FIRST = [
  [0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164],
]; // inferno, which brightens evenly and reads the same to every kind of colour vision

/** "#rrggbb" as a pixel of a canvas. */
export function pixel(colour, alpha = 255) {
  const value = parseInt(colour.slice(1), 16);
  return ((alpha << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

/** The colour of an uncertainty in [0, 1], as [r, g, b]. */
export function heat(value) {
  const place = Math.min(1, Math.max(0, value)) * (DARK_FIRST.length - 1);
  const low = Math.min(DARK_FIRST.length - 2, Math.floor(place));
  return DARK_FIRST[low].map((each, i) => Math.round(each + (DARK_FIRST[low + 1][i] - each) * (place - low)));
}

/**
 * Draw a layer into a canvas as large as the map.
 *
 * classes: (n) number of each superpixel's class, NONE, or below 0 for "erased, not known yet"; colours: of the classes;
 * groups: segments of the level at hand.
 */
export function paint(canvas, regions, mode, {classes, certainty, colours, groups}) {
  const {width, height, map, n} = regions;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d");
  if (mode === "photograph") return context.clearRect(0, 0, width, height);
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const inside = new Uint32Array(n);
  const own = new Uint32Array(n); // of each class, opaque
  const pixelsOf = colours.map((colour) => pixel(colour));
  for (let id = 0; id < n; id += 1) {
    const value = classes[id];
    own[id] = value === NONE ? 0xff9a9a9a : value < 0 ? ERASED : pixelsOf[value] ?? ERASED;
    if (mode === "prediction") inside[id] = value === NONE ? 0 : own[id];
    if (mode === "uncertainty") {
      const doubt = 1 - certainty[id];
      const [r, g, b] = heat(doubt);
      inside[id] = ((Math.round(150 + 90 * doubt) << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
  }
  const edges = mode === "edges";
  for (let y = 0, place = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, place += 1) {
      const id = map[place];
      const right = x + 1 < width ? map[place + 1] : id;
      const below = y + 1 < height ? map[place + width] : id;
      let value = inside[id];
      if (id !== right || id !== below) {
        const differs = classes[id] !== classes[right] || classes[id] !== classes[below];
        if (differs) value = edges ? own[id] : mode === "prediction" ? EDGE : value;
        else if (edges && (groups[id] !== groups[right] || groups[id] !== groups[below])) value = GRID;
      }
      if (edges && value === 0 && x > 0 && y > 0) {
        const left = map[place - 1];
        const above = map[place - width];
        if (classes[id] !== classes[left] || classes[id] !== classes[above]) value = own[id];
      }
      pixels[place] = value;
    }
  }
  context.putImageData(picture, 0, 0);
}
