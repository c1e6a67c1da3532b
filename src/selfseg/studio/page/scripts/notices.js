// What the person must know: errors with the way out, the connection, and whether the last decision is kept.

import {listen} from "./api.js";
import {fill, h, icon} from "./dom.js";
import {time} from "./numbers.js";

let host;
let link;
const shown = [];

/** Say that something didn't work. `again`, if given, tries it once more. */
export function fail(what, error, again) {
  if (error.name === "AbortError") return;
  const lost = error.status === 0 || error.status === 403;
  const sentence = lost ? `${what} was not saved: ${lower(error.message)}` : `${what} did not work: ${error.message}`;
  say(sentence, "error", again);
}

function lower(sentence) {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1);
}

export function say(sentence, kind = "note", again = null) {
  const old = shown.find((each) => each.dataset.sentence === sentence);
  if (old) close(old);
  const notice = h(
    "div",
    {class: `notice ${kind}`, role: kind === "error" ? "alert" : "status", dir: "auto"},
    h("p", {}, sentence),
    again && h("button", {type: "button", onclick: () => (close(notice), again())}, "Try again"),
    h("button", {type: "button", class: "quiet", "aria-label": "Close this note", onclick: () => close(notice)}, icon("close")),
  );
  notice.dataset.sentence = sentence;
  shown.push(notice);
  while (shown.length > 3) close(shown[0]);
  host.append(notice);
  if (kind !== "error") setTimeout(() => close(notice), 6000);
}

function close(notice) {
  notice.remove();
  const place = shown.indexOf(notice);
  if (place >= 0) shown.splice(place, 1);
}

const LINKS = {
  lost: [
    "The studio does not answer.",
    "It was stopped, or the connection is gone. What was saved is safe. This page tries again by itself; if nothing happens, start selfseg studio again with the same command.",
  ],
  locked: [
    "The studio does not let this browser in.",
    "It was probably started anew. Open the address that its terminal shows now; what was saved is safe.",
  ],
};

export function startNotices() {
  host = document.getElementById("notices");
  link = h("div", {role: "alert"});
  host.append(link);
  listen("connection", (how) => {
    const words = LINKS[how];
    const gone = how === "ok" && link.childElementCount > 0;
    fill(link, words && h("div", {class: "notice link"}, h("p", {}, h("strong", {}, words[0]), " ", words[1])));
    if (gone) say("The studio answers again.");
  });
}

/** The word beside the undo button. */
export function savedNote() {
  const note = h("span", {class: "saved", role: "status"});
  listen("saving", ({waiting, failed}) => {
    note.classList.toggle("failed", failed);
    if (waiting > 0) note.textContent = "Saving …";
    else fill(note, failed ? "Not saved" : "Saved", !failed && h("span", {class: "clock"}, ` ${time(new Date())}`));
  });
  return note;
}
