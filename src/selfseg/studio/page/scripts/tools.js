// How an image is looked at: what lies over the photograph, how strongly, and how large segments are.

import {h, icon} from "./dom.js";
import {heat} from "./layers.js";

const MODES = {prediction: "Prediction", uncertainty: "Uncertainty", edges: "Edges", photograph: "Photograph"};

export class Tools {
  constructor(viewer) {
    this.viewer = viewer;
    this.modes = h(
      "div",
      {class: "segmented modes", role: "group", "aria-label": "What lies over the photograph (M)"},
      Object.entries(MODES).map(([mode, words]) =>
        h("button", {type: "button", "data-mode": mode, onclick: () => viewer.set({mode})}, words),
      ),
    );
    this.opacity = h("input", {type: "range", min: 0, max: 100, step: 1, oninput: () => viewer.set({opacity: this.opacity.value / 100})});
    this.size = h("input", {type: "range", min: 0, max: 100, step: 1, oninput: () => viewer.set({level: this.levelOf(this.size.value / 100)})});
    const ramp = Array.from({length: 8}, (_, i) => `rgb(${heat(i / 7).join(" ")})`).join(", ");
    this.legend = h(
      "p",
      {class: "ramp", hidden: true},
      h("span", {}, "sure"),
      h("i", {style: {"--ramp": `linear-gradient(to right, ${ramp})`}}),
      h("span", {}, "unsure"),
    );
    this.element = h(
      "div",
      {class: "tools"},
      this.modes,
      this.legend,
      h("label", {class: "slider"}, h("span", {}, "Opacity"), this.opacity),
      h(
        "label",
        {class: "slider"},
        h("span", {}, "Segment size"),
        h("button", {type: "button", class: "tool", "aria-label": "Smaller segments ([)", title: "Smaller segments ([, or the wheel)", onclick: () => viewer.grow(false)}, icon("minus")),
        this.size,
        h("button", {type: "button", class: "tool", "aria-label": "Larger segments (])", title: "Larger segments (], or the wheel)", onclick: () => viewer.grow(true)}, icon("plus")),
      ),
    );
    viewer.addEventListener("changed", () => this.update());
    this.update();
  }

  most() {
    return this.viewer.regions?.n ?? 500;
  }

  /** 0 = superpixels, 1 = the whole image; in between by ratios. */
  levelOf(size) {
    return Math.round(this.most() ** (1 - size));
  }

  update() {
    const {mode, opacity, level} = this.viewer.look;
    for (const button of this.modes.children) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    this.legend.hidden = mode !== "uncertainty";
    if (document.activeElement !== this.opacity) this.opacity.value = String(Math.round(opacity * 100));
    const size = 1 - Math.log(Math.min(level, this.most())) / Math.log(this.most());
    if (document.activeElement !== this.size) this.size.value = String(Math.round(size * 100));
    this.size.setAttribute("aria-valuetext", `the image in ${Math.round(Math.min(level, this.most()))} segments`);
  }

  key(event) {
    const {viewer} = this;
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const modes = Object.keys(MODES);
    const key = event.key.toLowerCase();
    if (key === "m") viewer.set({mode: modes[(modes.indexOf(viewer.look.mode) + 1) % modes.length]});
    else if (key === "f") viewer.fit();
    else if (event.key === "+" || event.key === "=") viewer.zoom(1.5);
    else if (event.key === "-" || event.key === "−") viewer.zoom(1 / 1.5);
    else if (event.key === "]" || event.key === ".") viewer.grow(true);
    else if (event.key === "[" || event.key === ",") viewer.grow(false);
    else return false;
    return true;
  }
}
