// Part 1: what was found in the whole collection, a card for each cluster.

import {Card} from "./card.js";
import {ClassList} from "./classes.js";
import {inkOn} from "./colours.js";
import {fill, h, typed} from "./dom.js";
import {colourNote} from "./false_colours.js";
import {count, percent, several} from "./numbers.js";
import {decide, store} from "./store.js";

const FILTERS = {
  all: ["All", () => true],
  open: ["To decide", (each) => !each.name && !each.leftOut],
  named: ["Named", (each) => each.name],
  out: ["Left out", (each) => each.leftOut],
};

export class Concepts {
  constructor() {
    this.cards = new Map();
    this.filter = "all";
    this.kept = new Set(); // cards that stay although what was decided no longer fits the filter
    this.current = null;
    this.classes = new ClassList({painting: false});
    this.title = h("h1", {});
    this.unusable = h("p", {class: "hint", hidden: true});
    this.lead = h(
      "p",
      {class: "lead"},
      "Each card is a cluster of segments that look alike. Name what you recognise; clusters with the same name are one class. " +
        "Split what mixes things, leave out what you don’t need.",
    );
    this.coverage = h("div", {class: "coverage", role: "img"});
    this.sentence = h("p", {class: "sentence"});
    this.filters = h("div", {class: "segmented", role: "group", "aria-label": "Which clusters are shown"});
    this.k = h("select", {id: "k", onchange: () => this.chooseK()});
    this.grid = h("div", {class: "cards"});
    this.side = h("aside", {"aria-label": "Names in use"}, h("h2", {}, "Names in use"), this.classes.element);
    this.nothing = h("p", {class: "hint nothing", hidden: true});
    this.element = h(
      "div",
      {class: "concepts"},
      h(
        "section",
        {class: "overview", "aria-label": "How far you have come"},
        this.title,
        this.unusable,
        this.lead,
        colourNote(),
        this.coverage,
        this.sentence,
      ),
      h(
        "div",
        {class: "bar"},
        this.filters,
        h("label", {class: "k", for: "k"}, "Clusters ", this.k),
      ),
      h(
        "div",
        {class: "with-side"},
        h("section", {"aria-label": "Clusters"}, this.grid, this.nothing),
        this.side,
      ),
    );
  }

  open() {
    this.kept.clear();
  }

  update(state) {
    this.classes.update();
    this.side.classList.toggle("empty", !state.classes.length);
    this.drawCoverage(state);
    this.title.textContent = `What was found in ${several(state.images, "image")}`;
    this.unusable.hidden = !state.unusable;
    this.unusable.textContent = `${several(state.unusable, "more image")} can’t be used. studio/regions/skipped.jsonl in the run’s folder says which, and why.`;
    this.lead.hidden = state.progress.decisions >= 5; // by then one knows
    this.sentence.textContent = state.progress.sentence;
    this.drawFilters(state);
    const drawn = JSON.stringify([state.k, state.kNow]);
    if (drawn !== this.drawnK) {
      this.drawnK = drawn;
      fill(this.k, state.k.map((k) => h("option", {value: String(k), selected: k === state.kNow}, count(k))));
    }
    this.drawCards(state);
  }

  drawCards(state) {
    const fits = FILTERS[this.filter][1];
    const shown = state.clusters
      .filter((each) => fits(each) || this.kept.has(each.id))
      .sort((a, b) => order(state, a) - order(state, b) || partOrder(a, b));
    const wanted = new Set(shown.map((each) => each.id));
    const typing = [...this.cards.values()].find((card) => card.field.input === document.activeElement);
    const place = () => this.placeCards(shown, wanted);
    if (typing) typing.field.holding(place);
    else place();
    if (!this.cards.has(this.current)) this.current = shown[0]?.id ?? null;
    for (const [id, card] of this.cards) card.element.tabIndex = id === this.current ? 0 : -1;
    this.nothing.hidden = shown.length > 0;
    this.nothing.textContent =
      this.filter === "open"
        ? "Every cluster is decided. Now look at a few images: 2 Images, or 3 What next?"
        : "None.";
  }

  placeCards(shown, wanted) {
    for (const [id, card] of this.cards) {
      if (!wanted.has(id)) {
        card.element.remove();
        this.cards.delete(id);
      }
    }
    let before = null;
    for (const cluster of shown) {
      let card = this.cards.get(cluster.id);
      if (card) card.update(cluster);
      else this.cards.set(cluster.id, (card = new Card(cluster, this)));
      const place = before ? before.nextSibling : this.grid.firstChild;
      if (card.element !== place) this.grid.insertBefore(card.element, place);
      before = card.element;
    }
  }

  drawFilters(state) {
    fill(
      this.filters,
      Object.entries(FILTERS).map(([key, [words, fits]]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(key === this.filter),
            onclick: () => {
              this.filter = key;
              this.kept.clear();
              this.update(store.state);
            },
          },
          `${words} `,
          h("small", {}, count(state.clusters.filter(fits).length)),
        ),
      ),
    );
  }

  /** A bar of all pixels: those of named clusters by class, those left out, those still to decide. */
  drawCoverage(state) {
    const shares = new Map();
    let out = 0;
    for (const {name, leftOut, share} of state.clusters) {
      if (name) shares.set(name, (shares.get(name) ?? 0) + share);
      else if (leftOut) out += share;
    }
    const part = (share, words, props, ...inside) =>
      h("span", {...props, style: {"--share": share, ...props.style}, title: `${words}: ${percent(share)}`}, inside);
    const named = [...shares].sort((a, b) => b[1] - a[1]).map(([name, share]) => {
      const colour = state.classes.find((each) => each.name === name)?.colour ?? "#888888";
      return part(share, name, {class: "part", style: {"--colour": colour, "--ink-on": inkOn(colour)}}, share > 0.07 && typed(name));
    });
    const total = [...shares.values()].reduce((sum, each) => sum + each, 0);
    const rest = Math.max(0, 1 - total - out);
    fill(
      this.coverage,
      named,
      out > 0 && part(out, "left out", {class: "part out"}),
      h("span", {class: "rest", title: `to decide: ${percent(rest)}`}, rest > 0.08 && `${percent(rest)} to decide`),
    );
    this.coverage.setAttribute(
      "aria-label",
      `Of all pixels, ${percent(total)} lie in named clusters, ${percent(out)} in clusters left out, ${percent(rest)} are to decide`,
    );
  }

  async chooseK() {
    const k = Number(this.k.value);
    if (!(await decide("/api/k", {k}, "The number of clusters"))) this.k.value = String(store.state.kNow);
  }

  // Where the keys are

  onFocus(card) {
    this.current = card.cluster.id;
    if (this.filter !== "all") this.kept.add(card.cluster.id);
    for (const [id, each] of this.cards) each.element.tabIndex = id === this.current ? 0 : -1;
  }

  focus(id) {
    if (!this.cards.has(id)) {
      this.filter = "all";
      this.update(store.state);
    }
    const card = this.cards.get(id);
    if (!card) return;
    card.element.focus();
    card.element.scrollIntoView({block: "nearest"});
  }

  /** After a name: the next card that has none, in the order on the screen; where there is none, stay. */
  onward(card) {
    const ids = [...this.grid.children].map((element) => this.idOf(element));
    const at = ids.indexOf(card.cluster.id);
    const next = [...ids.slice(at + 1), ...ids.slice(0, at)].find((id) => {
      const {name, leftOut} = this.cards.get(id).cluster;
      return !name && !leftOut;
    });
    if (next) this.focus(next);
    else card.element.focus();
  }

  idOf(element) {
    for (const [id, card] of this.cards) if (card.element === element) return id;
    return null;
  }

  arrow(key, card) {
    const elements = [...this.grid.children];
    const at = elements.indexOf(card.element);
    let next = null;
    if (key === "ArrowRight") next = elements[at + 1];
    else if (key === "ArrowLeft") next = elements[at - 1];
    else if (key === "Home") next = elements[0];
    else if (key === "End") next = elements.at(-1);
    else if (key === "ArrowDown" || key === "ArrowUp") {
      const own = card.element.getBoundingClientRect();
      const beyond = elements.filter((each) => {
        const top = each.getBoundingClientRect().top;
        return key === "ArrowDown" ? top > own.top + 4 : top < own.top - 4;
      });
      const far = (each) => {
        const box = each.getBoundingClientRect();
        return Math.abs(box.top - own.top) * 4 + Math.abs(box.left - own.left);
      };
      next = beyond.sort((a, b) => far(a) - far(b))[0];
    } else return false;
    if (next) this.focus(this.idOf(next));
    return true;
  }

  /** Keys that no card has taken. */
  key(event) {
    if (event.key.startsWith("Arrow") && this.current && document.activeElement?.closest(".card") === null) {
      this.focus(this.current);
      return true;
    }
    return false;
  }
}

/** Large clusters first; parts stay together where their whole stood, and so do their places while names are given. */
function order(state, cluster) {
  const whole = cluster.id.split(".")[0];
  const share = state.clusters
    .filter((each) => each.id === whole || each.id.startsWith(`${whole}.`))
    .reduce((sum, each) => sum + each.share, 0);
  return -share;
}

function partOrder(a, b) {
  return a.id.localeCompare(b.id, "en", {numeric: true});
}
