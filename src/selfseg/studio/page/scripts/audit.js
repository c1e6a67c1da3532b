// Part 4: places drawn at random, judged one by one, and what follows from that.

import {get, post} from "./api.js";
import {classOfKey} from "./classes.js";
import {fill, h, icon, typed} from "./dom.js";
import {nameField} from "./names.js";
import {fail} from "./notices.js";
import {count, percent, several} from "./numbers.js";
import {store} from "./store.js";
import {Viewer} from "./viewer.js";

const PLACES = 60;
const UNSURE = "unsure";

export class Audit {
  constructor() {
    this.audit = undefined;
    this.at = 0;
    this.viewer = new Viewer("Photograph with the place in question marked");
    this.viewer.look.mode = "photograph";
    this.viewer.canvas.classList.add("still");
    // Nothing is painted here: a click by mistake would change what is judged.
    this.viewer.begin = () => {};
    this.viewer.touch = () => {};
    this.viewer.grow = () => {};
    this.viewer.drawSegment = () => {};
    this.body = h("div", {class: "audit-body"});
    this.element = h("div", {class: "audit"}, h("h1", {}, "How good is it?"), this.body);
  }

  async open() {
    try {
      this.audit = await get("/api/audit");
    } catch (error) {
      return fail("Reading the audit", error);
    }
    this.version = store.state?.version;
    this.images ??= new Map();
    this.at = this.first();
    this.draw();
  }

  first() {
    const open = this.audit?.places.findIndex((each) => each.verdict === null) ?? -1;
    return open;
  }

  async begin() {
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    try {
      this.audit = await post("/api/audit/start", {count: PLACES, seed});
    } catch (error) {
      return fail("Drawing the places", error);
    }
    this.at = 0;
    this.draw();
  }

  draw() {
    const {audit} = this;
    if (!audit) return this.drawStart();
    if (this.at >= 0 && this.at < audit.places.length) return this.drawPlace();
    return this.drawResult();
  }

  drawStart() {
    const classes = store.state?.classes.length ?? 0;
    fill(
      this.body,
      h(
        "section",
        {class: "panel narrow"},
        h("p", {class: "lead"}, `${PLACES} places are drawn at random over all images. At each you say whether the predicted name is right. That takes about five minutes, and it is the only number on these pages that says how good the result is.`),
        h(
          "ul",
          {class: "plain"},
          h("li", {}, "Judge what lies exactly under the mark, not what is around it."),
          h("li", {}, "“Can’t tell” is a good answer; it makes the interval wider instead of the result better."),
          h("li", {}, "Finish all places before you look: who stops at a pleasing number has no fair one."),
        ),
        classes === 0 && h("p", {class: "hint strong"}, "Nothing has a name yet. Name some clusters first (part 1)."),
        h("button", {type: "button", class: "primary", disabled: classes === 0, onclick: () => this.begin()}, `Draw ${PLACES} places`),
      ),
    );
  }

  async imageOf(index) {
    if (!this.images.has(index)) this.images.set(index, (await get(`/api/images?from=${index}&count=1`))[0]);
    return this.images.get(index);
  }

  drawPlace() {
    const {audit} = this;
    const place = audit.places[this.at];
    const own = store.state.classes.find((each) => each.name === place.predicted);
    const done = audit.places.filter((each) => each.verdict !== null).length;
    const verdict = (value, words, key, props = {}) =>
      h(
        "button",
        {type: "button", ...props, "aria-pressed": String(place.verdict === value), onclick: () => this.judge(value)},
        h("kbd", {}, key),
        words,
      );
    const others = store.state.classes.filter((each) => each.name !== place.predicted);
    const field = nameField({
      label: "Another name",
      placeholder: "Another name …",
      empty: false,
      onname: (name) => this.judge(name),
    });
    const digit = (one) => store.state.classes.indexOf(one) + 1;
    const buttons = h(
      "div",
      {class: "verdicts"},
      verdict(place.predicted, place.predicted ? "Yes, right" : "Yes, none of the names", "Y", {class: "yes"}),
      h(
        "div",
        {class: "others", role: "group", "aria-label": "No, it is"},
        h("span", {class: "label"}, "No, it is"),
        others.slice(0, 30).map((one) =>
          h(
            "button",
            {type: "button", class: "answer", "aria-pressed": String(place.verdict === one.name), onclick: () => this.judge(one.name)},
            digit(one) < 10 && h("kbd", {}, String(digit(one))),
            h("span", {class: "dot", style: {"--colour": one.colour}}),
            typed(one.name),
          ),
        ),
        place.predicted !== "" && verdict("", "none of the names", "N"),
        others.length > 6 && field.element,
      ),
      verdict(UNSURE, "Can’t tell", "U"),
    );
    fill(
      this.body,
      h(
        "section",
        {class: "judging"},
        h(
          "div",
          {class: "stage"},
          this.viewer.element,
        ),
        h(
          "div",
          {class: "judge"},
          h("p", {class: "progress"}, `Place ${count(this.at + 1)} of ${count(audit.places.length)}`, h("progress", {max: audit.places.length, value: done, "aria-label": "Places judged"})),
          h("h2", {}, "Under the mark, is this right?"),
          h(
            "p",
            {class: "claim", style: {"--colour": own?.colour ?? "transparent"}},
            place.predicted ? typed(place.predicted) : "none of the names",
          ),
          buttons,
          h(
            "p",
            {class: "steps"},
            h("button", {type: "button", disabled: this.at === 0, onclick: () => this.move(-1)}, icon("left"), "Back"),
            done < audit.places.length
              ? h("button", {type: "button", class: "quiet text", onclick: () => this.look()}, "Stop here for now")
              : h("button", {type: "button", class: "primary", onclick: () => this.look()}, "See the result"),
          ),
          h("p", {class: "hint"}, "Zoom with Ctrl and the wheel, + and −, or two fingers."),
        ),
      ),
    );
    this.imageOf(place.image)
      .then((image) => this.viewer.show(image, {focus: {x: place.x, y: place.y, near: 1.8}}))
      .catch((error) => fail("Showing the place", error));
  }

  move(by) {
    this.at += by;
    this.draw();
  }

  look() {
    this.at = -1;
    this.draw();
  }

  async judge(verdict) {
    if (this.judging) return;
    this.judging = true;
    const n = this.at;
    try {
      this.audit = await post("/api/audit/answer", {n: this.audit.places[n].n, verdict});
      const places = this.audit.places;
      const after = places.findIndex((each, place) => place > n && each.verdict === null);
      this.at = after >= 0 ? after : this.first();
      this.draw();
    } catch (error) {
      fail("The verdict", error, () => this.judge(verdict));
    } finally {
      this.judging = false;
    }
  }

  drawResult() {
    const {audit} = this;
    const left = audit.places.length - audit.answered;
    const date = new Intl.DateTimeFormat(undefined, {dateStyle: "long"}).format(new Date());
    fill(
      this.body,
      h(
        "article",
        {class: "panel result"},
        left > 0 &&
          h(
            "p",
            {class: "hint strong"},
            `Only ${count(audit.answered)} of ${count(audit.places.length)} places are judged. The result below is for these alone, and is fair only if you go on to the end whatever it says. `,
            h("button", {type: "button", onclick: () => ((this.at = this.first()), this.draw())}, "Go on judging"),
          ),
        audit.decisionsSince > 0 &&
          h(
            "p",
            {class: "hint strong"},
            `${several(audit.decisionsSince, "decision")} came after this audit began. It speaks of the predictions before them. `,
            h("button", {type: "button", onclick: () => this.begin()}, "Audit again, with new places"),
          ),
        h(
          "div",
          {class: "verdict"},
          h("p", {class: "accuracy"}, audit.accuracy === null ? "–" : percent(audit.accuracy), h("small", {}, "of the judged places are right")),
          h(
            "div",
            {},
            interval(audit.low, audit.high, audit.accuracy, "true share of right pixels"),
            h("p", {}, "With 95 % confidence between ".replace("95 %", percent(0.95)), h("b", {}, percent(audit.low)), " and ", h("b", {}, percent(audit.high)), "."),
          ),
        ),
        h("p", {class: "sentence", dir: "auto"}, audit.sentence),
        audit.perClass.length > 0 && this.table(),
        audit.limits.length > 0 && [h("h2", {}, "What this does not cover"), h("ul", {class: "plain"}, audit.limits.map((each) => h("li", {dir: "auto"}, each)))],
        h(
          "p",
          {class: "about"},
          `Run ${store.state.run}, ${several(store.state.images, "image")}, ${several(audit.places.length, "place")} at random, ${date}.`,
        ),
        h(
          "p",
          {class: "steps"},
          h("button", {type: "button", onclick: () => window.print()}, icon("print"), "Print"),
          h("button", {type: "button", onclick: () => ((this.at = 0), this.draw())}, "Look at the places again"),
          h("button", {type: "button", onclick: () => this.begin()}, "New audit"),
        ),
      ),
    );
  }

  table() {
    const rows = this.audit.perClass.map(({name, right, judged, low, high}) => {
      const own = store.state.classes.find((each) => each.name === name);
      return h(
        "tr",
        {},
        h("th", {scope: "row"}, h("span", {class: "dot", style: {"--colour": own?.colour ?? "#888888"}}), name ? typed(name) : "none of the names"),
        h("td", {}, judged ? `${count(right)} of ${count(judged)}` : "–"),
        h("td", {class: "wide"}, judged > 0 ? interval(low, high, right / judged, name) : h("small", {}, "no place fell on it")),
        h("td", {}, judged > 0 && `${percent(low)} – ${percent(high)}`),
      );
    });
    return [
      h("h2", {}, "Where a class is predicted, how often is it right?"),
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["Class", "Right", "95 % interval".replace("95 %", percent(0.95)), ""].map((each) => h("th", {scope: "col"}, each)))),
        h("tbody", {}, rows),
      ),
      h("p", {class: "hint"}, "A class with few places has a wide interval: that is how little is known of it."),
    ];
  }

  update(state) {
    // An undo may have taken back a verdict.
    if (this.audit !== undefined && this.version !== undefined && state.version !== this.version && !this.judging) {
      this.version = state.version;
      get("/api/audit")
        .then((audit) => {
          const same = JSON.stringify(audit) === JSON.stringify(this.audit);
          this.audit = audit;
          if (!same && this.element.isConnected) {
            const place = audit?.places[this.at];
            if (!place || place.verdict !== null || this.at < 0) this.at = this.at < 0 ? -1 : this.first();
            this.draw();
          }
        })
        .catch(() => {});
    }
  }

  key(event) {
    const place = this.audit?.places[this.at];
    if (!place || event.ctrlKey || event.metaKey || event.altKey) return false;
    const one = classOfKey(event);
    const key = event.key.toLowerCase();
    if (one) this.judge(one.name);
    else if (key === "y") this.judge(place.predicted);
    else if (key === "n") this.judge("");
    else if (key === "u") this.judge(UNSURE);
    else if (event.key === "ArrowLeft" && this.at > 0 && document.activeElement !== this.viewer.canvas) this.move(-1);
    else if (event.key === "+" || event.key === "=") this.viewer.zoom(1.5);
    else if (event.key === "-") this.viewer.zoom(1 / 1.5);
    else if (key === "f") this.viewer.fit();
    else return false;
    return true;
  }
}

/** An interval on a scale from nothing to all. */
function interval(low, high, middle, what) {
  return h(
    "div",
    {
      class: "interval",
      role: "img",
      "aria-label": `${what}: ${percent(low)} to ${percent(high)}`,
      style: {"--low": low, "--high": high, "--middle": middle ?? (low + high) / 2},
    },
    h("i", {class: "range"}),
    middle !== null && h("i", {class: "middle"}),
  );
}
