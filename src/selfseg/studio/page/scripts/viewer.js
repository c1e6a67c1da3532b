// A canvas with a photograph, what is predicted over it, and the segment under the pointer.

import {getBytes, post} from "./api.js";
import {h, icon} from "./dom.js";
import {paint} from "./layers.js";
import {fail} from "./notices.js";
import {photograph, regions} from "./pictures.js";
import {follow} from "./pointer.js";
import {NONE, Prediction} from "./regions.js";
import {palette, patch, store} from "./store.js";

const ERASED = -1;
const LARGEST = 40; // times the size at which the image fits
let strokes = 0;
const session = Math.random().toString(36).slice(2, 10);

export class Viewer extends EventTarget {
  /** `fixed`: it is only looked at. Nothing can be painted, and a mark stays where it is. */
  constructor(label, {fixed = false} = {}) {
    super();
    this.fixed = fixed;
    this.canvas = h("canvas", {tabindex: 0, role: "application", "aria-label": label});
    this.canvas.classList.toggle("still", fixed);
    this.notice = h("p", {class: "viewer-notice", role: "status"});
    const button = (name, words, action) =>
      h("button", {type: "button", class: "tool", "aria-label": words, title: words, onclick: action}, icon(name));
    this.element = h(
      "div",
      {class: "viewer"},
      this.canvas,
      this.notice,
      h(
        "div",
        {class: "viewer-tools"},
        button("plus", "Zoom in (+)", () => this.zoom(1.5)),
        button("minus", "Zoom out (−)", () => this.zoom(1 / 1.5)),
        button("fit", "Whole image (F)", () => this.fit()),
      ),
    );
    this.layer = document.createElement("canvas");
    this.look = {mode: "prediction", opacity: 0.55, level: 80};
    this.view = {scale: 1, x: 0, y: 0};
    this.painted = new Map(); // superpixels whose answer isn't there yet: their class, null where erased
    this.image = null;
    this.regions = null;
    this.hovered = null;
    this.mark = null; // the place in question
    this.cursor = null; // the place that the arrow keys went to
    this.context = this.canvas.getContext("2d");
    follow(this);
    new ResizeObserver(() => this.resize()).observe(this.element);
  }

  /** Show an image. `focus` {x, y} is brought near and marked; what was shown before goes at once. */
  async show(image, {focus = null, level = null} = {}) {
    if (this.stroke) this.commit(); // it belongs to the image that goes
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    Object.assign(this, {image, regions: null, prediction: null, photo: null});
    Object.assign(this, {hovered: null, mark: focus, cursor: null});
    const version = store.state?.version; // before the prediction is asked for: it is at least that new
    this.painted.clear();
    this.element.style.setProperty("--shape", image.height / image.width);
    if (level) this.look.level = level;
    this.tell("Loading …");
    this.redraw();
    try {
      const path = `/api/image/${image.index}/prediction`;
      const [photo, map, bytes] = await Promise.all([
        photograph(image.index),
        regions(image.index),
        getBytes(path, loading.signal),
      ]);
      if (this.loading !== loading) return;
      Object.assign(this, {photo, regions: map, prediction: new Prediction(bytes), version});
      this.tell("");
      this.fit(focus);
      this.relayer();
      this.hover(focus ?? null);
      if (store.state) this.follow(store.state);
    } catch (error) {
      if (error.name !== "AbortError") this.tell(`This image can't be shown: ${error.message}`);
    }
  }

  tell(words) {
    this.notice.textContent = words;
    this.notice.hidden = !words;
  }

  /** Take in that the studio has decided something else. */
  async follow(state) {
    if (!this.regions || this.painted.size) return;
    if (this.version === state.version) return this.relayer();
    this.version = state.version;
    const {image} = this;
    try {
      const bytes = await getBytes(`/api/image/${image.index}/prediction`);
      if (this.image !== image || this.painted.size) return;
      this.prediction = new Prediction(bytes);
      this.relayer();
    } catch {
      this.version = null; // the notice about the connection says it; the next change tries again
    }
  }

  // Segments

  set(look) {
    Object.assign(this.look, look);
    if (this.regions && look.level) this.look.level = this.regions.clamp(look.level);
    this.relayer();
    this.hover(this.hovered);
    this.changed();
  }

  /** Outline the segment at a place; null for none. */
  hover(place) {
    this.hovered = place;
    const id = place && this.regions ? this.regions.at(place.x, place.y) : NONE;
    if (id === NONE) this.segment = null;
    else {
      const groups = this.regions.groups(this.look.level);
      if (this.segment?.group !== groups[id] || this.segment.groups !== groups) {
        const members = this.regions.members(id, this.look.level);
        const area = this.regions.area(members);
        this.segment = {id, group: groups[id], groups, members, area, path: this.regions.outline(members)};
      }
      this.segment.id = id;
    }
    this.redraw();
    this.changed();
  }

  /** Make the segment under the pointer larger, or smaller. */
  grow(larger) {
    if (!this.regions || this.fixed || this.stroke) return;
    const place = this.hovered ?? {x: 0.5, y: 0.5};
    const id = this.regions.at(place.x, place.y);
    if (id === NONE) return;
    const level = this.regions.step(id, this.look.level, larger);
    this.set({level});
  }

  /** What is believed of the segment under the pointer: {name, certainty, area}. */
  about() {
    if (!this.segment || !this.prediction) return null;
    const value = this.classes()[this.segment.id];
    const name = value >= 0 && value !== NONE ? palette()[value]?.name ?? "" : "";
    const known = !this.painted.has(this.segment.id);
    return {name, certainty: known ? this.prediction.certainty[this.segment.id] : null, area: this.segment.area};
  }

  classes() {
    if (!this.painted.size) return this.prediction.classes;
    const found = Int32Array.from(this.prediction.classes);
    const names = palette().map((each) => each.name);
    for (const [id, name] of this.painted) found[id] = name === null ? ERASED : names.indexOf(name);
    return found;
  }

  // Decisions

  /** Begin a stroke: the segments it passes get the class (null: erased) at once on the screen, and for good at its end. */
  begin(name) {
    if (this.fixed) return;
    if (this.stroke) this.commit(); // a key came in the middle of a drag
    this.stroke = {name, places: [], ids: [], groups: new Set(), image: this.image, level: this.look.level};
  }

  touch(place) {
    const stroke = this.stroke;
    if (!stroke || !this.regions || stroke.image !== this.image) return;
    const id = this.regions.at(place.x, place.y);
    if (id === NONE) return;
    const group = this.regions.groups(stroke.level)[id];
    if (stroke.groups.has(group)) return;
    stroke.groups.add(group);
    stroke.places.push([place.x, place.y]);
    for (const member of this.regions.members(id, stroke.level)) {
      stroke.ids.push(member);
      this.painted.set(member, stroke.name);
    }
    this.relayer();
  }

  cancel() {
    for (const id of this.stroke?.ids ?? []) this.painted.delete(id);
    this.stroke = null;
    this.relayer();
  }

  /** End the stroke and let the studio keep it; gives whether it was kept. */
  async commit() {
    const stroke = this.stroke;
    this.stroke = null;
    if (!stroke?.places.length) return false;
    strokes += 1;
    const said = {
      image: stroke.image.index,
      places: stroke.places,
      level: stroke.level,
      name: stroke.name,
      stroke: `${session}-${strokes}`,
    };
    const what = stroke.name === null ? "Erasing" : "The click";
    let kept = false;
    try {
      const answer = await post("/api/click", said, what);
      kept = true;
      if (this.image === stroke.image) {
        this.prediction = Prediction.fromBase64(answer.prediction);
        this.version = answer.version;
        for (const id of stroke.ids) this.painted.delete(id);
      }
      const {prediction, ...part} = answer;
      patch(part);
      this.dispatchEvent(new CustomEvent("decided", {detail: said}));
    } catch (error) {
      if (this.image === stroke.image) for (const id of stroke.ids) this.painted.delete(id);
      fail(what, error);
    }
    this.relayer();
    return kept;
  }

  // Drawing

  relayer() {
    if (this.regions && this.prediction) {
      paint(this.layer, this.regions, this.look.mode, {
        classes: this.classes(),
        certainty: this.prediction.certainty,
        colours: palette().map((each) => each.colour),
        groups: this.regions.groups(this.look.level),
      });
    }
    this.redraw();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const {canvas, context, view, look} = this;
    const ratio = devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.photo || !this.image) return;
    const {width, height} = this.image;
    context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
    context.imageSmoothingEnabled = view.scale * ratio < 6 * (this.photo.width / width);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.photo, 0, 0, width, height);
    if (!this.regions) return;
    context.globalAlpha = look.mode === "edges" ? 1 : look.opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.layer, 0, 0, width, height);
    context.globalAlpha = 1;
    if (this.segment && !this.fixed) this.drawSegment(width / this.regions.width);
    if (this.mark) this.drawMark(this.mark, "#ffd60a");
    if (this.cursor) this.drawMark(this.cursor, "#fff");
  }

  drawSegment(scale) {
    const {context, view} = this;
    context.save();
    context.scale(scale, (this.image.height / this.regions.height));
    const line = (width, colour, dash = []) => {
      context.lineWidth = width / (view.scale * scale);
      context.setLineDash(dash.map((each) => each / (view.scale * scale)));
      context.strokeStyle = colour;
      context.stroke(this.segment.path);
    };
    context.lineCap = "square";
    line(4, "rgb(0 0 0 / .75)");
    line(2, "#fff", this.erasing ? [4, 4] : []);
    context.restore();
  }

  drawMark(place, colour) {
    const {context, view} = this;
    const [x, y] = [place.x * this.image.width, place.y * this.image.height];
    for (const [line, ink] of [[5, "rgb(0 0 0 / .8)"], [2.5, colour]]) {
      context.lineWidth = line / view.scale;
      context.strokeStyle = ink;
      context.beginPath();
      context.arc(x, y, 15 / view.scale, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + (dx * 15) / view.scale, y + (dy * 15) / view.scale);
        context.lineTo(x + (dx * 23) / view.scale, y + (dy * 23) / view.scale);
      }
      context.stroke();
      context.beginPath();
      context.arc(x, y, (line * 0.8) / view.scale, 0, 2 * Math.PI);
      context.fillStyle = ink;
      context.fill();
    }
  }

  // Where one looks

  resize() {
    const {clientWidth, clientHeight} = this.element;
    if (!clientWidth || !clientHeight) return;
    const ratio = devicePixelRatio || 1;
    Object.assign(this.canvas, {width: Math.round(clientWidth * ratio), height: Math.round(clientHeight * ratio)});
    if (!this.moved) this.fit(this.mark);
    this.draw();
  }

  whole() {
    const {clientWidth, clientHeight} = this.element;
    return this.image ? Math.min(clientWidth / this.image.width, clientHeight / this.image.height) : 1;
  }

  /** The whole image, or what is around a place. */
  fit(focus = null) {
    if (!this.image) return;
    this.moved = false;
    const {clientWidth, clientHeight} = this.element;
    const scale = this.whole() * (focus?.near ?? 1);
    const middle = {x: 0.5, y: 0.5, ...(focus?.near ? focus : {})};
    Object.assign(this.view, {
      scale,
      x: clientWidth / 2 - middle.x * this.image.width * scale,
      y: clientHeight / 2 - middle.y * this.image.height * scale,
    });
    this.keep();
  }

  /** Keep the image on the canvas. */
  keep() {
    const {clientWidth, clientHeight} = this.element;
    const {view, image} = this;
    const inside = (start, size, room) =>
      size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, start));
    view.x = inside(view.x, image.width * view.scale, clientWidth);
    view.y = inside(view.y, image.height * view.scale, clientHeight);
    this.redraw();
  }

  zoom(factor, at = {x: this.element.clientWidth / 2, y: this.element.clientHeight / 2}) {
    if (!this.image) return;
    const whole = this.whole();
    const scale = Math.min(whole * LARGEST, Math.max(whole, this.view.scale * factor));
    const change = scale / this.view.scale;
    this.moved = scale > whole;
    Object.assign(this.view, {
      scale,
      x: at.x - (at.x - this.view.x) * change,
      y: at.y - (at.y - this.view.y) * change,
    });
    this.keep();
  }

  pan(dx, dy) {
    if (!this.image) return;
    this.moved = true;
    this.view.x += dx;
    this.view.y += dy;
    this.keep();
  }

  /** The place in the image, x, y in [0, 1], under a point of the canvas; null outside. */
  placeAt(point) {
    if (!this.image) return null;
    const x = (point.x - this.view.x) / (this.image.width * this.view.scale);
    const y = (point.y - this.view.y) / (this.image.height * this.view.scale);
    return x >= 0 && y >= 0 && x < 1 && y < 1 ? {x, y} : null;
  }

  changed() {
    this.dispatchEvent(new Event("changed"));
  }
}
