// Part 3: the segments whose answer would help most, one after the other.

import {get} from "./api.js";
import {brush} from "./brush.js";
import {classOfKey, keyOf} from "./classes.js";
import {fill, h, icon} from "./dom.js";
import {colourNote, inColours} from "./false_colours.js";
import {describe} from "./images.js";
import {nameField} from "./names.js";
import {fail} from "./notices.js";
import {several} from "./numbers.js";
import {prefetch} from "./pictures.js";
import {draft, store} from "./store.js";
import {Tools} from "./tools.js";
import {Viewer} from "./viewer.js";

const ASKED = 12; // questions at once
const SEEN = 350; // ms for which an answer is seen before the next question comes
const SIDE = 0.3; // of a thumbnail, as a share of the image

export class Next {
  constructor() {
    this.questions = [];
    this.at = 0;
    this.given = 0;
    this.passed = 0;
    this.answersGiven = []; // {question, clicks}, in order
    this.clicks = store.state?.progress.clicks ?? 0; // the studio's, with those that it has not told yet
    this.viewer = new Viewer("Photograph with the segment in question. Digits answer.");
    this.viewer.look.opacity = 0.35;
    this.viewer.addEventListener("changed", () => describe(this.status, this.viewer));
    this.viewer.addEventListener("needclass", () => this.askForName());
    this.viewer.addEventListener("decided", (event) => this.answered(event.detail));
    this.tools = new Tools(this.viewer);
    this.field = nameField({
      label: "Another name",
      placeholder: "Another name …",
      empty: false,
      onname: (name) => {
        this.field.set("");
        this.field.input.blur();
        draft(name);
        this.answer(name);
      },
    });
    this.list = h("ol", {class: "queue"});
    this.why = h("p", {class: "why"});
    this.status = h("p", {class: "segment-status"});
    this.sentence = h("p", {class: "sentence"});
    this.skipButton = h("button", {type: "button", class: "answer", onclick: () => this.skip()}, h("kbd", {}, "Space"), "Skip");
    this.answers = h("div", {class: "names", role: "group", "aria-label": "What is it?"});
    this.session = h("p", {class: "hint"});
    this.element = h(
      "div",
      {class: "workbench next"},
      h(
        "aside",
        {class: "queue-side", "aria-label": "Questions"},
        h("h1", {}, "Where an answer helps most"),
        h("p", {class: "hint"}, "These segments are unsure, common, and unlike what you answered before. They show where to look; how good the result is, part 4 tells."),
        this.list,
        h("button", {type: "button", onclick: () => this.load()}, "Ask anew"),
      ),
      h(
        "section",
        {class: "stage", "aria-label": "The segment in question"},
        h("div", {class: "question"}, h("h2", {}, "What is the marked segment?"), this.why),
        this.viewer.element,
        this.status,
        colourNote(),
        h("div", {class: "answers"}, this.answers, this.field.element, this.skipButton),
      ),
      h(
        "aside",
        {class: "tools-side", "aria-label": "View"},
        this.sentence,
        this.session,
        this.tools.element,
      ),
    );
  }

  async open() {
    if (!this.questions.length || this.version !== store.state?.version) await this.load();
    else this.show();
  }

  async load() {
    clearTimeout(this.onward);
    const own = (this.loading = {});
    try {
      this.images ??= await this.allImages();
      const questions = await get(`/api/queue?count=${ASKED}`);
      if (this.loading !== own) return;
      this.questions = questions;
    } catch (error) {
      this.moving = false;
      return void fail("Asking what helps", error);
    }
    this.version = store.state?.version;
    this.at = 0;
    this.show();
  }

  async allImages() {
    const found = [];
    for (let from = 0; ; from += 500) {
      const page = await get(`/api/images?from=${from}&count=500`);
      found.push(...page);
      if (page.length < 500) return found;
    }
  }

  show() {
    clearTimeout(this.onward);
    this.moving = false;
    this.drawList();
    const question = this.questions[this.at];
    if (!question) {
      this.viewer.tell("There is nothing to ask at the moment: nothing is unsure. Look at some images, or audit the result.");
      fill(this.why);
      return;
    }
    this.why.textContent = question.why;
    const {x, y, level} = question;
    this.viewer.show(this.images[question.image], {focus: {x, y, near: 1.6}, level});
    const after = this.questions[this.at + 1];
    if (after) prefetch(after.image);
  }

  drawList() {
    fill(
      this.list,
      this.questions.map((question, place) => {
        const {image, x, y, why} = question;
        const side = (middle) => Math.min(Math.max(middle - SIDE / 2, 0), 1 - SIDE);
        const [left, top] = [side(x), side(y)];
        const box = [left, top, left + SIDE, top + SIDE].map((each) => each.toFixed(4)).join(",");
        return h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              class: question.done ? "done" : "",
              "aria-current": place === this.at ? "true" : null,
              onclick: () => {
                this.at = place;
                this.show();
              },
            },
            h(
              "span",
              {class: "spot", style: {"--x": (x - left) / SIDE, "--y": (y - top) / SIDE}},
              h("img", {src: inColours(`/api/crop?image=${image}&box=${box}&size=160`), alt: "", loading: "lazy", draggable: "false"}),
            ),
            h("span", {}, question.done ?? why),
          ),
        );
      }),
    );
    this.list.querySelector("[aria-current]")?.scrollIntoView({block: "nearest"});
  }

  drawAnswers(state) {
    const all = [...state.classes, ...store.drafts];
    const drawn = JSON.stringify(all.map(({name, colour}) => [name, colour]));
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    fill(
      this.answers,
      all.slice(0, 18).map((one, place) =>
        h(
          "button",
          {type: "button", class: "answer", style: {"--colour": one.colour}, onclick: () => this.answer(one.name)},
          keyOf(place) && h("kbd", {}, keyOf(place)),
          h("span", {class: "dot", style: {"--colour": one.colour}}),
          h("bdi", {}, one.name),
        ),
      ),
      !all.length && h("p", {class: "hint"}, "There are no names yet. Type one here, or name clusters first (part 1)."),
    );
  }

  askForName() {
    if (!store.state.classes.length) this.field.input.focus();
    this.status.textContent = "Answer with one of the names below, or its digit; after that, clicks paint with it.";
  }

  /** Give the marked segment a class; the next question comes when it is kept. */
  async answer(name) {
    const question = this.questions[this.at];
    // A second key in a hurry would answer again, or answer what nobody has seen yet.
    if (!question || question.sending || this.moving) return;
    if (!this.viewer.regions || this.viewer.image?.index !== question.image) return;
    brush.choose(name);
    question.sending = true;
    this.viewer.begin(name);
    this.viewer.touch(question);
    await this.viewer.commit();
    question.sending = false;
  }

  answered({image, places, level, name}) {
    this.version = store.state.version;
    this.given += 1;
    this.clicks += places.length;
    const asked = this.questions[this.at];
    const hit = asked?.image === image && this.viewer.regions && this.sameSegment(asked, places, level);
    this.answersGiven.push({question: hit ? asked : null, clicks: places.length});
    this.tellSession();
    if (!hit) return;
    asked.done = name === null ? "Taken back" : name;
    // The first answers change what is worth asking most: ask again early, and after each list.
    const done = this.questions.filter((each) => each.done).length;
    const last = done >= 6 || this.at + 1 >= this.questions.length;
    clearTimeout(this.onward);
    this.moving = true;
    this.onward = setTimeout(() => (last ? this.load() : this.forward()), SEEN);
  }

  /** Answers were undone: what they answered is a question again. */
  takenBack(clicks) {
    let left = clicks;
    let place = -1;
    while (left > 0 && this.answersGiven.length) {
      const last = this.answersGiven.pop();
      left -= last.clicks;
      this.given -= 1;
      if (!last.question) continue;
      delete last.question.done;
      place = this.questions.indexOf(last.question);
    }
    this.tellSession();
    if (place < 0) return void this.load();
    this.at = place;
    this.show();
  }

  sameSegment(question, places, level) {
    const groups = this.viewer.regions.groups(level);
    const own = groups[this.viewer.regions.at(question.x, question.y)];
    return places.some(([x, y]) => groups[this.viewer.regions.at(x, y)] === own);
  }

  skip() {
    if (!this.questions.length) return;
    if (!this.moving) this.passed += 1;
    this.tellSession();
    this.forward();
  }

  forward() {
    if (this.at + 1 < this.questions.length) {
      this.at += 1;
      this.show();
    } else this.load();
  }

  tellSession() {
    const passed = this.passed ? `, ${this.passed} passed over` : "";
    const words = `Since this page was opened: ${several(this.given, "answer")}${passed}.`;
    this.session.textContent = this.given > 0 ? words : "";
  }

  update(state) {
    this.sentence.textContent = state.progress.sentence;
    this.drawAnswers(state);
    this.viewer.follow(state);
    if (state.progress === this.progress) return; // an answer to a click, which doesn't count
    this.progress = state.progress;
    const fallen = this.clicks - state.progress.clicks;
    this.clicks = state.progress.clicks;
    if (fallen > 0 && this.questions.length) this.takenBack(fallen);
  }

  key(event) {
    const one = classOfKey(event);
    if (one !== undefined) {
      if (one) this.answer(one.name);
    } else if (event.key === " ") {
      if (event.shiftKey) {
        this.at = Math.max(0, this.at - 1);
        this.show();
      } else this.skip();
    } else if (event.key.toLowerCase() === "e" && !event.ctrlKey && !event.metaKey) brush.choose(null);
    else return this.tools.key(event);
    return true;
  }
}
