// Part 2: an image with its prediction; segments are corrected here.

import {get} from "./api.js";
import {brush} from "./brush.js";
import {ClassList, chooseByKey} from "./classes.js";
import {fill, h, icon, typed} from "./dom.js";
import {colourNote} from "./false_colours.js";
import {fail} from "./notices.js";
import {count, percent} from "./numbers.js";
import {prefetch} from "./pictures.js";
import {store} from "./store.js";
import {ImageStrip} from "./strip.js";
import {Tools} from "./tools.js";
import {Viewer} from "./viewer.js";

const PAGE = 500;

export class Images {
  constructor() {
    this.images = [];
    this.order = "name";
    this.at = -1; // place in `sorted`
    this.viewer = new Viewer("Photograph with its prediction. Arrow keys move the mark, Enter gives the segment the class.");
    this.viewer.addEventListener("needclass", () => {
      this.status.textContent = "Choose a class first, or type a new one.";
      if (!store.state.classes.length) this.classes.ask();
    });
    this.viewer.addEventListener("changed", () => this.tellSegment());
    this.viewer.addEventListener("decided", () => this.reload(500));
    this.classes = new ClassList({painting: true});
    this.tools = new Tools(this.viewer);
    this.strip = new ImageStrip((place) => this.go(place));
    this.name = typed("", {class: "file"});
    this.place = h("span", {class: "place"});
    this.status = h("p", {class: "segment-status"});
    this.sort = h(
      "select",
      {"aria-label": "Order of the images", onchange: () => this.resort()},
      h("option", {value: "name"}, "By name"),
      h("option", {value: "unsure"}, "Most unsure first"),
    );
    const step = (by, words, name) =>
      h("button", {type: "button", class: "tool", "aria-label": words, title: words, onclick: () => this.step(by)}, icon(name));
    this.element = h(
      "div",
      {class: "workbench"},
      h("h1", {class: "hidden"}, "Images"),
      h("aside", {class: "strip-side", "aria-label": "All images"}, this.sort, this.strip.element),
      h(
        "section",
        {class: "stage", "aria-label": "Image"},
        h(
          "div",
          {class: "stage-bar"},
          step(-1, "The image before (Shift+Space)", "left"),
          step(1, "Next image (Space)", "right"),
          h("span", {class: "stage-title"}, this.name, this.place),
        ),
        this.viewer.element,
        this.status,
        colourNote(),
      ),
      h("aside", {class: "tools-side", "aria-label": "Classes and view"}, this.tools.element, h("h2", {}, "Paint with"), this.classes.element),
    );
    brush.listen(() => this.tellSegment());
  }

  /** Shown: at an image and a place in it, if the address says so. */
  async open([index, x, y] = []) {
    if (!this.images.length) await this.load();
    if (!this.images.length) return;
    const asked = index === undefined ? null : this.sorted.findIndex((each) => each.index === Number(index));
    if (asked !== null && asked >= 0) {
      const focus = x === undefined ? null : {x: Number(x), y: Number(y), near: 2};
      if (focus || asked !== this.at) this.go(asked, focus);
    } else if (this.at < 0) this.go(0);
  }

  async load() {
    for (let from = 0; ; from += PAGE) {
      const page = await get(`/api/images?from=${from}&count=${PAGE}`);
      for (const each of page) this.images[each.index] = Object.assign(this.images[each.index] ?? {}, each);
      if (page.length < PAGE) break;
    }
    this.arrange(this.order);
  }

  /** The images' uncertainties follow some time after a decision; their order stays until it is asked for again. */
  reload(after) {
    clearTimeout(this.later);
    this.later = setTimeout(async () => {
      try {
        const now = this.sorted[this.at];
        const from = Math.floor(now.index / PAGE) * PAGE;
        for (const each of await get(`/api/images?from=${from}&count=${PAGE}`)) Object.assign(this.images[each.index], each);
        this.strip.redraw();
      } catch {
        // It is shown the next time.
      }
    }, after);
  }

  /** In the order that was chosen; by what is unsure now, not when the page was opened. */
  async resort() {
    this.order = this.sort.value;
    if (this.order !== "unsure") return this.arrange(this.order);
    try {
      await this.load();
    } catch (error) {
      fail("Asking what is unsure", error);
      this.arrange(this.order);
    }
  }

  arrange(order) {
    const now = this.sorted?.[this.at];
    this.sorted = [...this.images];
    if (order === "unsure") this.sorted.sort((a, b) => b.uncertainty - a.uncertainty);
    this.at = now ? this.sorted.indexOf(now) : -1;
    this.strip.set(this.sorted, this.at);
    this.tellPlace();
  }

  go(place, focus = null) {
    this.at = place;
    const image = this.sorted[place];
    const address = `#images/${image.index}`;
    if (location.hash.startsWith("#images")) history.replaceState(null, "", address);
    this.strip.choose(place);
    this.tellPlace();
    this.viewer.show(image, {focus}).then(() => {
      if (this.sorted[place + 1]) prefetch(this.sorted[place + 1].index);
    });
  }

  step(by) {
    if (!this.sorted?.length) return;
    this.go((this.at + by + this.sorted.length) % this.sorted.length);
  }

  tellPlace() {
    const image = this.sorted[this.at];
    if (!image) return;
    this.name.textContent = image.name;
    this.name.title = image.name;
    this.place.textContent = `${count(this.at + 1)} of ${count(this.sorted.length)}`;
  }

  tellSegment() {
    describe(this.status, this.viewer);
  }

  update(state) {
    this.classes.update();
    this.viewer.follow(state);
    if (this.images.length && this.version !== state.version && !state.busy) {
      this.version = state.version;
      this.reload(300);
    }
  }

  key(event) {
    if (event.key === " ") this.step(event.shiftKey ? -1 : 1);
    else if (event.key === "PageDown" || event.key === "PageUp") this.step(event.key === "PageDown" ? 1 : -1);
    else return chooseByKey(event) || this.tools.key(event);
    return true;
  }
}

/** One line about the segment under the pointer, and what a click would do. */
export function describe(line, viewer) {
  const segment = viewer.about();
  if (!segment) {
    const many = matchMedia("(pointer: coarse)").matches ? "Touch a segment, or drag to paint." : "Point at a segment. The wheel makes it larger or smaller.";
    line.textContent = many;
    return;
  }
  const {name} = brush;
  fill(
    line,
    segment.name ? ["Predicted ", h("b", {}, typed(segment.name))] : h("b", {}, "No class"),
    segment.certainty !== null && store.state.classes.length > 0 && h("span", {}, ` ${sureness(segment.certainty)}`),
    h("span", {class: "dim"}, ` · ${percent(segment.area)} of the image`),
    h(
      "span",
      {class: "dim"},
      " · a click here ",
      viewer.erasing || name === null ? "takes back what was clicked" : name === undefined ? "needs a class: choose one first" : ["says: ", typed(name)],
    ),
  );
}

function sureness(certainty) {
  return certainty > 0.9 ? "(sure)" : certainty > 0.6 ? "(rather sure)" : certainty > 0.25 ? "(not quite sure)" : "(unsure)";
}
