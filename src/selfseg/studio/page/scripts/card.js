// A cluster on a card: what it looks like, how large it is, and what the person says it is.

import {classOfKey} from "./classes.js";
import {fill, h, icon} from "./dom.js";
import {inColours} from "./false_colours.js";
import {nameField} from "./names.js";
import {percent, several} from "./numbers.js";
import {decide, store} from "./store.js";

/** A cluster's path in words: "27/3" is cluster 3, "27/3.1.0" part 1.0 of it. */
export function spoken(path) {
  const [, rest] = path.split("/");
  const [cluster, ...parts] = rest.split(".");
  return parts.length ? `Cluster ${cluster}, part ${parts.join(".")}` : `Cluster ${cluster}`;
}

function wholeOf(path) {
  return path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : null;
}

/**
 * How mixed a cluster seems, in words; the number behind it is no quality. On most collections most clusters lie above
 * any fixed bar, so the advice to split stands only on those that are mixed beside the others.
 */
function mixedWords(mixed, all) {
  if (mixed < 0.35) return "looks uniform";
  if (mixed < 0.65) return "somewhat mixed";
  const more = all.filter((other) => other > mixed).length;
  return more < all.length / 5 ? "more mixed than most: maybe split it" : "mixed";
}

export class Card {
  constructor(cluster, part) {
    this.part = part; // the grid it is on
    this.title = h("h3", {});
    this.share = h("span", {class: "share", title: "Share of all pixels of the collection"});
    this.mixed = h("span", {class: "mixed"});
    this.crops = h("div", {class: "crops"});
    this.merged = h("p", {class: "merged", role: "status"});
    this.field = nameField({
      label: "",
      placeholder: "What is it?",
      keepOnBlur: true,
      onleave: () => this.element.focus(),
      onname: (name, changed) => this.name(name, changed),
    });
    this.splitButton = h("button", {type: "button", onclick: () => this.askParts(), "aria-expanded": "false"}, icon("split"), "Split");
    this.outButton = h("button", {type: "button", onclick: () => this.leaveOut()}, icon("out"), h("span", {}));
    this.joinButton = h("button", {type: "button", onclick: () => this.join()}, icon("join"), "Join parts");
    this.parts = h("div", {class: "parts", hidden: true, role: "group", "aria-label": "Into how many parts?"});
    this.element = h(
      "article",
      {class: "card", tabindex: -1, onkeydown: (event) => this.key(event), onfocusin: () => part.onFocus(this)},
      h("header", {}, this.title, this.share, this.mixed),
      this.crops,
      this.merged,
      h("footer", {}, this.field.element, h("div", {class: "verbs"}, this.splitButton, this.outButton, this.joinButton)),
      this.parts,
    );
    this.cropsShown = "";
    this.update(cluster);
  }

  update(cluster) {
    this.cluster = cluster;
    const {name, leftOut, share, mixed, id} = cluster;
    const title = spoken(id);
    this.title.textContent = title;
    this.share.textContent = percent(share);
    fill(this.mixed, h("i", {class: "meter", style: {"--value": mixed}}), mixedWords(mixed, store.state.clusters.map((cluster) => cluster.mixed)));
    this.mixed.title = "How much its segments differ from each other, compared with all segments";
    const one = store.state.classes.find((each) => each.name === name);
    this.element.style.setProperty("--class", one?.colour ?? "transparent");
    this.element.classList.toggle("named", Boolean(name));
    this.element.classList.toggle("left-out", leftOut);
    this.element.setAttribute(
      "aria-label",
      `${title}, ${percent(share)} of all pixels, ${name ? `named ${name}` : leftOut ? "left out" : "no name yet"}`,
    );
    this.field.input.setAttribute("aria-label", `Name of ${title.toLowerCase()}`);
    this.field.input.placeholder = leftOut ? "left out" : "What is it?";
    this.field.set(name);
    fill(this.outButton.lastChild, leftOut ? "Take in" : "Leave out");
    this.outButton.setAttribute("aria-pressed", String(leftOut));
    this.joinButton.hidden = !wholeOf(id);
    const others = name ? store.state.clusters.filter((each) => each.name === name && each.id !== id) : [];
    const merged = others.map((each) => each.id).join();
    if (merged !== this.mergedShown) {
      this.mergedShown = merged;
      fill(this.merged, others.length > 0 && ["One class with ", this.links(others), "."]);
    }
    this.drawCrops();
  }

  links(others) {
    const shown = others.slice(0, 3).map((other, place) => [
      place > 0 && ", ",
      h("button", {type: "button", class: "link", onclick: () => this.part.focus(other.id)}, spoken(other.id).toLowerCase()),
    ]);
    return others.length > 3 ? [shown, ` and ${several(others.length - 3, "other")}`] : shown;
  }

  drawCrops() {
    const {id, typical, diverse, name} = this.cluster;
    const colour = store.state.classes.find((each) => each.name === name)?.colour;
    const drawn = JSON.stringify([id, typical, diverse]);
    if (drawn === this.cropsShown) {
      // The outline's colour may be another one; the picture there stays until the new one has come.
      for (const picture of this.crops.querySelectorAll("img")) {
        const address = withColour(picture.getAttribute("src"), colour);
        if (address !== picture.getAttribute("src")) picture.src = address;
      }
      return;
    }
    this.cropsShown = drawn;
    const row = (words, about, crops) =>
      crops.length > 0 && [
        h("h4", {title: about}, words),
        h("div", {class: "row"}, crops.slice(0, 6).map((crop, place) => this.crop(crop, `${words} segment ${place + 1}`, colour))),
      ];
    fill(
      this.crops,
      row("Typical", "Nearest to the middle of the cluster", typical),
      row("Also in it", "As different from each other as the cluster has them", diverse),
      !typical.length && h("p", {class: "hint"}, "No segment of these images falls into it."),
    );
  }

  crop({image, box}, words, colour) {
    const asked = new URLSearchParams({image, box: box.join(","), cluster: this.cluster.id, size: 240});
    const [x0, y0, x1, y1] = box;
    return h(
      "a",
      {href: `#images/${image}/${((x0 + x1) / 2).toFixed(4)}/${((y0 + y1) / 2).toFixed(4)}`, title: "Show it in its image"},
      h("img", {src: withColour(inColours(`/api/crop?${asked}`), colour), alt: `${words} of ${spoken(this.cluster.id).toLowerCase()}`, loading: "lazy", decoding: "async", draggable: "false"}),
    );
  }

  // What is decided

  async name(name, changed) {
    if (changed) {
      const kept = await decide("/api/name", {cluster: this.cluster.id, name}, this.nameOf(name));
      if (!kept) return void this.field.set(this.cluster.name);
    }
    if (name && document.activeElement === this.field.input) this.part.onward(this);
    else if (document.activeElement === this.field.input) this.element.focus();
  }

  nameOf(name) {
    const title = spoken(this.cluster.id).toLowerCase();
    return name ? `The name of ${title}` : `Taking the name from ${title}`;
  }

  leaveOut() {
    const {id, leftOut} = this.cluster;
    const title = spoken(id).toLowerCase();
    const what = leftOut ? `Taking in ${title}` : `Leaving out ${title}`;
    return decide("/api/leave-out", {cluster: id, on: !leftOut}, what);
  }

  async join() {
    const whole = wholeOf(this.cluster.id);
    if (whole && (await decide("/api/unsplit", {cluster: whole}, "Joining the parts"))) this.part.focus(whole);
  }

  askParts() {
    const open = this.parts.hidden;
    this.parts.hidden = !open;
    this.splitButton.setAttribute("aria-expanded", String(open));
    if (!open) return;
    fill(
      this.parts,
      h("span", {}, "Into how many parts?"),
      [2, 3, 4, 5, 6, 7, 8].map((parts) => h("button", {type: "button", onclick: () => this.split(parts)}, String(parts))),
    );
    this.parts.querySelector("button").focus();
  }

  closeParts() {
    this.parts.hidden = true;
    this.splitButton.setAttribute("aria-expanded", "false");
    this.element.focus();
  }

  async split(parts) {
    const {id} = this.cluster;
    this.closeParts();
    this.element.classList.add("working");
    if (await decide("/api/split", {cluster: id, parts}, "The split")) this.part.focus(`${id}.0`);
    this.element.classList.remove("working");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey) return;
    if (!this.parts.hidden && this.parts.contains(event.target)) {
      const parts = Number(event.key);
      if (parts >= 2 && parts <= 8) this.split(parts);
      else if (event.key === "Escape") this.closeParts();
      else return;
      event.preventDefault();
      return event.stopPropagation();
    }
    if (event.target !== this.element) return;
    const one = classOfKey(event);
    const key = event.key.toLowerCase();
    if (one !== undefined) {
      if (one) this.given(one.name);
    } else if (event.key === "Enter") {
      this.field.input.focus();
      this.field.input.select();
    } else if (key === "s") this.askParts();
    else if (key === "x") this.leaveOut();
    else if (key === "j" && wholeOf(this.cluster.id)) this.join();
    else if (event.key === "Delete" || event.key === "Backspace") this.given("");
    else if (!this.part.arrow(event.key, this)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  async given(name) {
    if (name === this.cluster.name) return;
    const kept = await decide("/api/name", {cluster: this.cluster.id, name}, this.nameOf(name));
    if (kept && name && document.activeElement === this.element) this.part.onward(this);
  }
}

/** Another address for another colour of the outline: the browser asks again. */
function withColour(address, colour) {
  const bare = address.replace(/&colour=[^&]*/, "");
  return colour ? `${bare}&colour=${encodeURIComponent(colour)}` : bare;
}
