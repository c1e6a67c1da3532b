// Part 4: places drawn at random, judged one by one, and what follows from that.

import {get, post} from "./api.js";
import {asked} from "./asking.js";
import {result} from "./audit_result.js";
import {classOfKey, keyOf} from "./classes.js";
import {afterPress, fill, h, icon, typed} from "./dom.js";
import {nameField} from "./names.js";
import {fail} from "./notices.js";
import {count, several} from "./numbers.js";
import {decided, store} from "./store.js";
import {Viewer} from "./viewer.js";

const PLACES = 60;
const UNSURE = "unsure";

export class Audit {
  constructor() {
    this.audit = undefined;
    this.unsaved = new Map(); // by a place's number: takes the notice away that its verdict was not saved
    this.at = 0;
    // Nothing is painted here: a click by mistake would change what is judged.
    this.viewer = new Viewer("Photograph with the place in question marked", {fixed: true});
    this.viewer.look.mode = "photograph";
    this.body = h("div", {class: "audit-body"});
    this.element = h("div", {class: "audit"}, h("h1", {}, "How good is it?"), this.body);
  }

  async open() {
    try {
      this.audit = await get("/api/audit");
    } catch (error) {
      return void fail("Reading the audit", error);
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
      this.audit = await post("/api/audit/start", {count: PLACES, seed}, "The new audit");
    } catch (error) {
      return void fail("The new audit", error);
    }
    for (const close of this.unsaved.values()) close();
    this.unsaved.clear();
    decided();
    this.at = 0;
    this.draw();
  }

  draw() {
    const {audit} = this;
    for (const [n, close] of this.unsaved) {
      if (audit && audit.places[n]?.verdict === null) continue;
      close(); // it has a verdict now
      this.unsaved.delete(n);
    }
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
          h("li", {}, "Finish all places before you look. A number is not fair if you stop when it pleases you."),
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
      onblur: () => this.update(store.state), // what came while a name was typed
    });
    this.field = field.input;
    const key = (one) => keyOf(store.state.classes.indexOf(one));
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
            key(one) && h("kbd", {}, key(one)),
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
          h(
            "p",
            {class: "hint"},
            "Drag to move the image. Zoom with Ctrl and the wheel, with + and −, or with two fingers; F shows all of it.",
          ),
        ),
      ),
    );
    this.show(place).catch((error) => fail("Showing the place", error));
  }

  async show(place) {
    const {image: index, x, y} = place;
    const shown = this.viewer.mark;
    // Zoomed and moved as the person has it, where only what is said beside it has changed.
    if (this.viewer.photo && this.viewer.image.index === index && shown?.x === x && shown.y === y) return;
    await this.viewer.show(await this.imageOf(index), {focus: {x, y, near: 1.8}});
  }

  move(by) {
    this.at += by;
    this.draw();
  }

  look() {
    this.at = -1;
    this.draw();
  }

  /** Say what is at a place; the next one without a verdict comes when it is kept. */
  async judge(verdict, n = this.at) {
    if (this.judging) return;
    this.judging = true;
    const {round} = this.audit;
    const what = `The verdict on place ${count(n + 1)}`;
    this.unsaved.get(n)?.(); // an earlier one that could not be saved is out of date
    try {
      this.audit = await post("/api/audit/answer", {round, n: this.audit.places[n].n, verdict}, what);
      decided();
      if (this.at !== n) return this.draw();
      const after = this.audit.places.findIndex((each, place) => place > n && each.verdict === null);
      this.at = after >= 0 ? after : this.first();
      this.draw();
    } catch (error) {
      if (error.status === 409) {
        fail(what, error); // another page has begun another audit
        await this.open();
      } else this.unsaved.set(n, fail(what, error, () => this.judge(verdict, n)));
    } finally {
      this.judging = false;
    }
  }

  drawResult() {
    fill(
      this.body,
      result(this.audit, {
        goOn: () => this.go(this.first()),
        review: () => this.go(0),
        again: () => this.again(),
      }),
    );
  }

  go(place) {
    this.at = place;
    this.draw();
  }

  /** A new audit; the one that has begun can't be gone on with after that. */
  async again() {
    const {answered, places} = this.audit;
    const left = places.length - answered;
    const words =
      `${several(left, "place")} of this audit ${left === 1 ? "is" : "are"} not judged yet. ` +
      "You can't go on with it after a new one is drawn, and a number is not fair if you draw until it pleases you.";
    const unfinished = answered > 0 && left > 0;
    const choice = {question: "Begin a new audit?", words, yes: "Draw new places", no: "Keep this one"};
    if (!unfinished || (await asked(choice))) await this.begin();
  }

  update(state) {
    // An undo may have taken back a verdict.
    const typing = document.activeElement === this.field;
    if (this.audit === undefined || state.version === this.version || this.judging || typing) return;
    this.version = state.version;
    this.read().catch(() => (this.version = null));
  }

  async read() {
    const known = this.audit;
    const audit = await get("/api/audit");
    await afterPress();
    // What was asked for before a verdict was kept may not know of it, whichever answer came first.
    if (this.judging || this.audit !== known || document.activeElement === this.field) {
      this.version = null; // the next beat reads it
      return;
    }
    if (JSON.stringify(audit) === JSON.stringify(this.audit)) return;
    const before = this.audit;
    this.audit = audit;
    if (this.at >= 0 && audit?.round === before?.round) {
      const undone = before?.places.findIndex((each, n) => each.verdict !== null && audit?.places[n]?.verdict === null);
      if (undone >= 0) this.at = undone; // to be judged again
    }
    const judged = (one) => (one?.places[this.at]?.verdict ?? null) !== null;
    const elsewhere = audit?.round !== before?.round || !audit?.places[this.at] || (judged(audit) && !judged(before));
    if (this.at >= 0 && elsewhere) this.at = this.first();
    if (this.element.isConnected) this.draw();
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
    else if (event.key === "ArrowLeft" && this.at > 0) this.move(-1);
    else if (event.key === "+" || event.key === "=") this.viewer.zoom(1.5);
    else if (event.key === "-") this.viewer.zoom(1 / 1.5);
    else if (key === "f") this.viewer.fit();
    else return false;
    return true;
  }
}
