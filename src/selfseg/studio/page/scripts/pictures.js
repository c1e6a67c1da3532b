// Photographs and regions of images, the last few kept: the one that comes next is there before it is asked for.

import {getBytes, getPicture} from "./api.js";
import {inColours} from "./false_colours.js";
import {Regions} from "./regions.js";

const KEPT = 8;
const kept = new Map(); // by index and size: promises

/** How large photographs are asked for: as large as the screen can show, in a few steps so that they can be kept. */
export function photographSize() {
  const longest = Math.max(screen.width, screen.height) * Math.min(devicePixelRatio, 2);
  return [1024, 1600, 2048].find((size) => size >= longest) ?? 2048;
}

function remember(key, make) {
  const found = kept.get(key) ?? make();
  kept.delete(key);
  kept.set(key, found);
  found.catch(() => kept.delete(key));
  while (kept.size > 2 * KEPT) kept.delete(kept.keys().next().value);
  return found;
}

export function photograph(index) {
  const size = photographSize();
  return remember(`photograph ${index} ${size}`, () => getPicture(inColours(`/api/image/${index}.jpg?size=${size}`)));
}

export function regions(index) {
  return remember(`regions ${index}`, async () => new Regions(await getBytes(`/api/image/${index}/regions`)));
}

export function prefetch(index) {
  photograph(index).catch(() => {});
  regions(index).catch(() => {});
}
