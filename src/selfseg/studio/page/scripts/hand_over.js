// Part 5: masks of all images, and a model, as files.

import {get, getBytes, listen, post} from "./api.js";
import {afterPress, fill, h, icon, typed} from "./dom.js";
import {paint} from "./layers.js";
import {fail} from "./notices.js";
import {bytes, count, ends, percent, several} from "./numbers.js";
import {photograph, regions} from "./pictures.js";
import {Prediction} from "./regions.js";
import {store} from "./store.js";

const SHOWN = 3; // images of the preview
const PULSE = 500; // ms

export class HandOver {
  constructor() {
    this.wanted = new Set(["palette"]);
    this.model = true;
    this.summary = h("div", {class: "summary"});
    this.preview = h("div", {class: "preview"});
    this.choices = h("fieldset", {class: "formats"});
    this.button = h("button", {type: "button", class: "primary", onclick: () => this.begin()}, "Write the files");
    this.progress = h("div", {class: "job", role: "status"});
    listen("connection", (how) => {
      // The studio may be another one by now, which has written nothing.
      if (how === "ok" && this.element.isConnected && this.formats) this.read();
    });
    this.element = h(
      "div",
      {class: "hand-over"},
      h("h1", {}, "Hand over"),
      h(
        "div",
        {class: "columns"},
        h("section", {class: "panel", "aria-label": "What is written"}, this.choices, this.button, this.progress),
        h("section", {class: "panel", "aria-label": "What is in it"}, h("h2", {}, "What is in it"), this.summary, this.preview),
      ),
    );
  }

  async open() {
    try {
      this.formats ??= await get("/api/formats");
      this.drawChoices();
    } catch (error) {
      return void fail("Opening this part", error);
    }
    await this.read();
  }

  /** What was judged and what was written, of the state that is shown. */
  async read() {
    const {version} = store.state;
    this.version = version;
    try {
      const [job, audit] = await Promise.all([get("/api/job"), get("/api/audit")]);
      await afterPress();
      if (this.version !== version) return; // something was decided; that is read already
      this.audit = audit;
      if (!this.starting) this.follow(job);
    } catch (error) {
      this.version = null; // the next change reads it
      return void fail("Reading what was written", error);
    }
    this.drawSummary(store.state);
    await this.drawPreview();
  }

  drawChoices() {
    const choice = (checked, disabled, title, about, problem, onchange) =>
      h(
        "label",
        {class: disabled ? "format off" : "format"},
        h("input", {type: "checkbox", checked, disabled, onchange: (event) => onchange(event.target.checked)}),
        h("span", {}, h("b", {}, title), h("span", {class: "about", dir: "auto"}, about), problem && h("span", {class: "problem"}, problem)),
      );
    fill(
      this.choices,
      h("legend", {}, "Masks of every image as"),
      this.formats.map(({key, title, about, problem}) =>
        choice(this.wanted.has(key), Boolean(problem), title, about, problem, (on) => {
          if (on) this.wanted.add(key);
          else this.wanted.delete(key);
          this.allow();
        }),
      ),
      h("h2", {}, "And the segmenter"),
      choice(this.model, false, "Model", "One file that names the pixels of any new image, of any size; runs with ONNX Runtime, without selfseg.", "", (on) => {
        this.model = on;
        this.allow();
      }),
    );
    this.allow();
  }

  allow() {
    const none = !store.state?.classes.length;
    this.button.disabled = none || this.running || (!this.wanted.size && !this.model);
    this.button.title = none ? "Nothing has a name yet" : "";
  }

  update(state) {
    this.allow();
    this.drawSummary(state);
    if (this.formats && state.version !== this.version) this.read();
  }

  drawSummary(state) {
    const {low, high, accuracy, decisionsSince} = this.audit ?? {};
    const drawn = JSON.stringify([state.classes, state.images, state.busy, low, high, accuracy, decisionsSince]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const counted = state.classes.every((each) => each.share !== null);
    const covered = Math.min(1, state.classes.reduce((sum, each) => sum + each.share, 0));
    const judged = this.audit && this.audit.accuracy !== null;
    fill(
      this.summary,
      h(
        "p",
        {},
        h("b", {}, several(state.images, "image")),
        ", ",
        h("b", {}, several(state.classes.length, "class", "classes")),
        ". ",
        counted
          ? [h("b", {}, percent(covered)), " of all pixels get a class, ", h("b", {}, percent(1 - covered)), " stay empty (void)."]
          : "Their pixels are being counted …",
      ),
      state.busy && h("p", {class: "hint strong"}, `${state.busy}.`),
      h(
        "p",
        {class: judged && !this.audit.decisionsSince ? "hint" : "hint strong"},
        !judged
          ? ["Nobody has checked yet how good these masks are. ", h("a", {href: "#audit"}, "An audit takes about five minutes.")]
          : [
              `By the audit, ${ends(this.audit.low, this.audit.high).join(" to ")} of the pixels are right`,
              this.audit.decisionsSince > 0 ? ` – before ${several(this.audit.decisionsSince, "later decision")}. ` : ". ",
              h("a", {href: "#audit"}, "See the audit"),
            ],
      ),
      h(
        "ol",
        {class: "shares", start: 0},
        state.classes.map((one, value) =>
          h(
            "li",
            {},
            h("code", {}, String(value)),
            h("span", {class: "dot", style: {"--colour": one.colour}}),
            typed(one.name),
            h("span", {class: "share-bar", style: {"--value": one.share ?? 0, "--colour": one.colour}}),
            h("span", {class: "number"}, percent(one.share)),
          ),
        ),
      ),
    );
  }

  /** A few images as their masks are now, evenly from the collection. */
  async drawPreview() {
    const total = store.state.images;
    const step = Math.max(1, Math.floor(total / SHOWN));
    const indices = [...new Set([0, 1, 2].map((i) => Math.min(total - 1, Math.floor(step / 2) + i * step)))];
    const own = (this.drawing = {});
    const wanted = indices.join();
    if (wanted !== this.figured) {
      this.figured = wanted;
      fill(
        this.preview,
        indices.map((index) => h("a", {href: `#images/${index}`, title: "Open this image"}, h("canvas", {}))),
        h("p", {class: "hint"}, `${several(indices.length, "image")} of ${count(total)}, with masks as they are now.`),
      );
    }
    for (const [place, index] of indices.entries()) {
      const canvas = h("canvas", {role: "img", "aria-label": `Image ${index} with its mask`});
      const show = (...children) => fill(this.preview.children[place], children);
      try {
        const [photo, map, found] = await Promise.all([
          photograph(index),
          regions(index),
          getBytes(`/api/image/${index}/prediction`),
        ]);
        if (this.drawing !== own) return; // a newer state is being drawn
        const layer = document.createElement("canvas");
        const {classes, certainty} = new Prediction(found);
        const colours = store.state.classes.map((each) => each.colour);
        paint(layer, map, "prediction", {classes, certainty, colours, groups: map.groups(map.n)});
        canvas.width = Math.min(640, photo.width);
        canvas.height = Math.round((canvas.width * photo.height) / photo.width);
        const context = canvas.getContext("2d");
        context.drawImage(photo, 0, 0, canvas.width, canvas.height);
        context.globalAlpha = 0.72;
        context.drawImage(layer, 0, 0, canvas.width, canvas.height);
        show(canvas);
      } catch (error) {
        show(h("p", {class: "hint"}, `Image ${index} can't be shown: ${error.message}`));
      }
    }
  }

  async begin() {
    this.running = this.starting = true;
    this.allow();
    try {
      await post("/api/hand-over", {formats: [...this.wanted], model: this.model});
      this.follow(await get("/api/job"));
    } catch (error) {
      this.running = false;
      this.allow();
      fail("Writing the files", error, () => this.begin());
    } finally {
      this.starting = false;
    }
  }

  follow(job) {
    clearTimeout(this.timer);
    const cutOff = this.running && !job;
    this.running = Boolean(job?.running);
    this.allow();
    if (job) this.drawJob(job);
    else this.forgetJob(cutOff);
    if (!this.running) return;
    const again = async () => {
      try {
        this.follow(await get("/api/job"));
      } catch {
        this.timer = setTimeout(again, 4 * PULSE); // the notice about the connection says it
      }
    };
    this.timer = setTimeout(again, PULSE);
  }

  /** The studio was started again since the last job: what that one wrote is offered no more. */
  forgetJob(cutOff) {
    if (!this.drawnJob) return;
    this.drawnJob = null;
    const last = cutOff ? "The studio was stopped while it wrote. " : "The studio was started again since the files were written. ";
    fill(this.progress, h("p", {class: "hint strong"}, `${last}Write the files again.`));
  }

  drawJob(job) {
    const drawn = JSON.stringify(job);
    if (drawn === this.drawnJob) return;
    this.drawnJob = drawn;
    fill(
      this.progress,
      job.running && h("progress", {max: Math.max(1, job.total), value: job.done, "aria-label": "Images written"}),
      h("p", {dir: "auto"}, job.sentence, job.running && job.total > 0 && ` ${count(job.done)} of ${count(job.total)}`),
      job.error && h("p", {class: "notice error", role: "alert", dir: "auto"}, job.error),
      job.files.length > 0 && [
        h("h2", {}, "Ready to download"),
        job.decisionsSince > 0 &&
          h(
            "p",
            {class: "hint strong"},
            `${several(job.decisionsSince, "decision")} came after these files. Write them again to have them follow.`,
          ),
        h(
          "ul",
          {class: "files"},
          job.files.map((file) =>
            h(
              "li",
              {},
              h("a", {href: `/files/${encodeURIComponent(file.name)}`, download: file.name}, icon("file"), typed(file.name)),
              h("span", {class: "number"}, bytes(file.bytes)),
              h("small", {dir: "auto"}, file.about),
            ),
          ),
        ),
      ],
    );
  }
}
