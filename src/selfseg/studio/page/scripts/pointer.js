// Mouse, pen, fingers and keys on a viewer's canvas.
//
// A press gives the segment the class, a drag paints; Alt erases. The wheel makes the segment larger or smaller; with
// Ctrl, or by pinching, it zooms. The right or middle button, or Shift, moves the image; so do two fingers.

import {brush} from "./brush.js";

const NEAR = 24; // px that the wheel must turn for a step

export function follow(viewer) {
  const {canvas} = viewer;
  const fingers = new Map();
  let panning = null;
  let pinch = null;
  let last = null;
  let turned = 0;

  const pointOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return {x: event.clientX - box.left, y: event.clientY - box.top};
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({preventScroll: true});
    if (viewer.cursor) {
      viewer.cursor = null;
      viewer.redraw();
    }
    const point = pointOf(event);
    canvas.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") {
      fingers.set(event.pointerId, point);
      if (fingers.size === 2) {
        viewer.cancel(); // it was no stroke, but half of a pinch
        pinch = spread(fingers);
        return;
      }
      if (fingers.size > 2) return;
    }
    if (viewer.fixed || event.button === 1 || event.button === 2 || event.shiftKey) {
      panning = point;
      canvas.classList.add("panning");
      event.preventDefault();
      return;
    }
    if (event.button !== 0) return;
    const place = viewer.placeAt(point);
    if (!place) return;
    const name = event.altKey ? null : brush.name;
    if (name === undefined) {
      viewer.hover(place);
      viewer.dispatchEvent(new Event("needclass"));
      return;
    }
    viewer.begin(name);
    viewer.touch(place);
    viewer.hover(place);
    last = point;
  });

  canvas.addEventListener("pointermove", (event) => {
    const point = pointOf(event);
    if (fingers.has(event.pointerId)) {
      fingers.set(event.pointerId, point);
      if (pinch && fingers.size >= 2) {
        const now = spread(fingers);
        viewer.pan(now.x - pinch.x, now.y - pinch.y);
        viewer.zoom(now.length / pinch.length, now);
        pinch = now;
        return;
      }
    }
    if (panning) {
      viewer.pan(point.x - panning.x, point.y - panning.y);
      panning = point;
      return;
    }
    viewer.erasing = event.altKey || brush.name === null;
    if (viewer.stroke && last) {
      const steps = Math.max(1, Math.ceil(Math.hypot(point.x - last.x, point.y - last.y) / 4));
      for (let step = 1; step <= steps; step += 1) {
        const share = step / steps;
        const place = viewer.placeAt({x: last.x + (point.x - last.x) * share, y: last.y + (point.y - last.y) * share});
        if (place) viewer.touch(place);
      }
      last = point;
    }
    if (viewer.fixed) return;
    if (event.movementX || event.movementY) viewer.cursor = null;
    if (event.pointerType !== "touch" || viewer.stroke) viewer.hover(viewer.placeAt(point));
  });

  const end = (event, kept) => {
    fingers.delete(event.pointerId);
    if (fingers.size < 2) pinch = null;
    if (panning) {
      panning = null;
      canvas.classList.remove("panning");
    }
    if (viewer.stroke) {
      if (kept) viewer.commit();
      else viewer.cancel();
    }
    last = null;
  };
  canvas.addEventListener("pointerup", (event) => end(event, true));
  canvas.addEventListener("pointercancel", (event) => end(event, false));
  canvas.addEventListener("pointerleave", () => {
    if (!viewer.stroke && !panning && !viewer.cursor) viewer.hover(null);
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaMode === 1 ? event.deltaY * 24 : event.deltaMode === 2 ? event.deltaY * 240 : event.deltaY;
      if (event.ctrlKey || event.metaKey) {
        viewer.zoom(Math.exp(-pixels / 250), pointOf(event));
        return;
      }
      turned += pixels;
      while (Math.abs(turned) >= NEAR) {
        viewer.grow(turned < 0);
        turned = Math.abs(turned) >= 4 * NEAR ? 0 : turned - Math.sign(turned) * NEAR;
      }
    },
    {passive: false},
  );

  canvas.addEventListener("keydown", (event) => {
    if (viewer.fixed) return; // its keys belong to the part
    const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    if (event.key in arrows && viewer.image && !event.ctrlKey && !event.metaKey) {
      const [dx, dy] = arrows[event.key];
      const step = (event.shiftKey ? 60 : 12) / viewer.view.scale;
      const from = viewer.cursor ?? viewer.hovered ?? viewer.mark ?? {x: 0.5, y: 0.5};
      const within = (value) => Math.min(0.9999, Math.max(0, value));
      const {width, height} = viewer.image;
      viewer.cursor = {x: within(from.x + (dx * step) / width), y: within(from.y + (dy * step) / height)};
      viewer.hover(viewer.cursor);
      event.preventDefault();
    } else if (event.key === "Enter" && viewer.hovered) {
      const name = event.altKey ? null : brush.name;
      if (name === undefined) return void viewer.dispatchEvent(new Event("needclass"));
      viewer.begin(name);
      viewer.touch(viewer.hovered);
      viewer.commit();
      event.preventDefault();
    }
  });
}

function spread(fingers) {
  const [a, b] = [...fingers.values()];
  return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y))};
}
