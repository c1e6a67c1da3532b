// All images in a column of thumbnails; only those in sight exist, so that ten thousand are no more work than ten.

import {h, typed} from "./dom.js";
import {inColours} from "./false_colours.js";
import {percent} from "./numbers.js";
import {store} from "./store.js";

const HEIGHT = 84; // px of a row

export class ImageStrip {
  constructor(onchoose) {
    this.onchoose = onchoose;
    this.images = [];
    this.chosen = -1;
    this.rows = new Map();
    this.inner = h("div", {class: "strip-inner", role: "listbox", "aria-label": "Images"});
    this.element = h("div", {class: "strip", onscroll: () => this.redraw(true)}, this.inner);
    new ResizeObserver(() => this.redraw(true)).observe(this.element);
  }

  set(images, chosen) {
    this.images = images;
    this.inner.style.setProperty("height", `${images.length * HEIGHT}px`);
    this.clear();
    this.choose(chosen);
  }

  clear() {
    this.inner.replaceChildren();
    this.rows.clear();
  }

  choose(place) {
    this.chosen = place;
    const top = place * HEIGHT;
    const {scrollTop, clientHeight} = this.element;
    if (place >= 0 && clientHeight && (top < scrollTop || top + HEIGHT > scrollTop + clientHeight)) {
      this.element.scrollTop = Math.max(0, top - clientHeight / 2 + HEIGHT / 2);
    }
    this.redraw();
  }

  /** Make the rows in sight; `scrolled`: those that are there stay as they are. */
  redraw(scrolled = false) {
    const {scrollTop, clientHeight} = this.element;
    if (!clientHeight) return;
    const first = Math.max(0, Math.floor(scrollTop / HEIGHT) - 3);
    const last = Math.min(this.images.length, Math.ceil((scrollTop + clientHeight) / HEIGHT) + 3);
    for (const [place, row] of this.rows) {
      if (place < first || place >= last) {
        row.remove();
        this.rows.delete(place);
      }
    }
    for (let place = first; place < last; place += 1) {
      const old = this.rows.get(place);
      if (old && scrolled) continue;
      if (old) this.refresh(old, place);
      else {
        const row = this.make(place);
        this.rows.set(place, row);
        this.inner.append(row);
      }
    }
  }

  make(place) {
    const {index, name} = this.images[place];
    const row = h(
      "button",
      {type: "button", class: "strip-row", role: "option", style: {"--top": `${place * HEIGHT}px`}, onclick: () => this.onchoose(place)},
      h("img", {src: inColours(`/api/image/${index}.jpg?size=160`), alt: "", decoding: "async", draggable: "false"}),
      h("span", {}, typed(name.split("/").slice(store.state.channels.length ? -2 : -1).join("/"), {class: "file"}), h("i", {class: "meter"}), h("small", {})),
    );
    this.refresh(row, place);
    return row;
  }

  refresh(row, place) {
    const {uncertainty, clicks, name} = this.images[place];
    row.setAttribute("aria-selected", String(place === this.chosen));
    row.title = `${name}: ${percent(uncertainty)} unsure`;
    row.querySelector(".meter").style.setProperty("--value", uncertainty);
    const known = store.state.classes.length > 0;
    row.querySelector(".meter").hidden = !known;
    if (!known) row.querySelector("small").textContent = "nothing named yet";
    else row.querySelector("small").textContent = clicks ? `${percent(uncertainty)} unsure · ${clicks} clicked` : `${percent(uncertainty)} unsure`;
  }
}
