// The list of classes: their keys, colours, names and shares; the one to paint with.

import {brush} from "./brush.js";
import {chooseColour, inkOn, tooClose} from "./colours.js";
import {afterPress, fill, h, icon, typed} from "./dom.js";
import {nameField} from "./names.js";
import {percent, several} from "./numbers.js";
import {decide, draft, palette, store} from "./store.js";

const KEYS = 18; // digits, and digits with Shift

/** What key chooses class number `place`, from 0: "1" to "9", "⇧1" to "⇧9"; "" for later ones. */
export function keyOf(place) {
  if (place < 9) return String(place + 1);
  return place < KEYS ? `⇧${place - 8}` : "";
}

/** The class that a key chooses: its entry in the palette, null for none, undefined if the key chooses no class. */
export function classOfKey(event) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (!digit || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  return palette()[Number(digit[1]) - 1 + (event.shiftKey ? 9 : 0)] ?? null;
}

/** Choose a class by its key, as wherever segments are painted. Whether the key was one. */
export function chooseByKey(event) {
  const one = classOfKey(event);
  if (one === undefined) {
    if (event.key.toLowerCase() !== "e" || event.ctrlKey || event.metaKey || event.altKey) return false;
    brush.choose(null);
    return true;
  }
  if (one) brush.choose(one.name);
  return true;
}

/** A list of classes. `painting`: whether one is chosen to paint with. */
export class ClassList {
  constructor({painting}) {
    this.painting = painting;
    this.list = h("ul", {class: painting ? "classes painting" : "classes", "aria-label": "Classes"});
    this.field = nameField({
      label: "Name of a new class",
      placeholder: "New class …",
      empty: false,
      onname: (name) => {
        this.field.set("");
        this.field.input.blur();
        draft(name);
        brush.choose(name);
      },
    });
    this.warning = h("p", {class: "hint", role: "status"});
    this.element = h("div", {}, this.list, painting && this.field.element, this.warning);
    if (painting) brush.listen(() => this.update());
    this.drawn = "";
  }

  /** Begin a new class, where there is none to choose. */
  ask() {
    this.field.input.focus();
  }

  update() {
    const all = palette();
    const drawn = JSON.stringify([all, brush.name, store.state?.clusters.map((each) => each.name)]);
    if (drawn === this.drawn || this.list.querySelector(".popover, .renaming")) return;
    this.drawn = drawn;
    const focused = document.activeElement?.dataset?.focus;
    const rows = all.map((one, place) => this.row(one, place));
    if (this.painting) rows.push(this.eraser());
    fill(this.list, rows);
    if (!all.length && !this.painting) {
      fill(this.list, h("li", {class: "hint"}, "No names yet. The first one that you give to a cluster appears here."));
    }
    if (focused) this.list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
    const pair = all.map((one) => [one, tooClose(one, all)]).find(([, other]) => other);
    fill(
      this.warning,
      pair && ["The colours of ", typed(pair[0].name), " and ", typed(pair[1].name), " are hard to tell apart for some people."],
    );
  }

  row(one, place) {
    const chosen = this.painting && brush.name === one.name;
    const swatch = h("button", {
      type: "button",
      class: "swatch",
      style: {"--colour": one.colour, "--ink-on": inkOn(one.colour)},
      disabled: one.draft,
      "data-focus": `colour ${one.name}`,
      "aria-label": `Colour of ${one.name}`,
      title: "Change the colour",
      onclick: () => chooseColour(swatch, one),
    }, keyOf(place));
    const clusters = store.state.clusters.filter((each) => each.name === one.name).length;
    const words = one.draft
      ? "not used yet"
      : [percent(one.share), clusters > 0 ? ` · ${several(clusters, "cluster")}` : " · by clicks only"];
    const name = this.painting
      ? h(
          "button",
          {
            type: "button",
            class: "pick",
            "aria-pressed": String(chosen),
            "data-focus": `pick ${one.name}`,
            onclick: () => brush.choose(one.name),
          },
          typed(one.name, {class: "class-name"}),
          h("small", {}, words),
        )
      : h("div", {class: "pick"}, typed(one.name, {class: "class-name"}), h("small", {}, words));
    const rename = h(
      "button",
      {
        type: "button",
        class: "quiet",
        disabled: one.draft,
        "data-focus": `rename ${one.name}`,
        "aria-label": `Rename ${one.name}`,
        title: "Rename; an existing name makes the two one class",
        onclick: () => this.rename(row, one),
      },
      icon("edit"),
    );
    const row = h("li", {class: chosen ? "chosen" : ""}, swatch, name, rename);
    return row;
  }

  eraser() {
    const chosen = brush.name === null;
    return h(
      "li",
      {class: chosen ? "chosen eraser" : "eraser"},
      h("span", {class: "swatch plain"}, "E"),
      h(
        "button",
        {type: "button", class: "pick", "aria-pressed": String(chosen), "data-focus": "erase", onclick: () => brush.choose(null)},
        h("span", {class: "class-name"}, icon("erase"), " Take back"),
        h("small", {}, "what was clicked here"),
      ),
    );
  }

  rename(row, one) {
    const done = (name = one.name) => {
      const back = row.contains(document.activeElement);
      row.classList.remove("renaming");
      this.drawn = "";
      this.update();
      if (back) this.list.querySelector(`[data-focus="${CSS.escape(`rename ${name}`)}"]`)?.focus();
    };
    const field = nameField({
      label: `New name of ${one.name}`,
      value: one.name,
      empty: false,
      onleave: () => done(),
      onblur: () => afterPress().then(() => row.isConnected && done()),
      onname: (name, changed) => {
        if (changed) {
          const again = brush.name === one.name;
          decide("/api/rename", {old: one.name, new: name}, "Renaming").then((kept) => {
            if (kept && again) brush.choose(name);
            done(kept ? name : one.name);
          });
        } else done();
      },
    });
    row.classList.add("renaming");
    fill(row, field.element);
    field.input.focus();
    field.input.select();
  }
}
