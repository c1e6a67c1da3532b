// What the person must know: errors with the way out, the connection, and whether the last decision is kept.

import {listen} from "./api.js";
import {fill, h, icon} from "./dom.js";
import {time} from "./numbers.js";

const MOST = 3; // notices at once; those that can be tried again come on top of that
const LAST_WORDS = "selfseg-gone"; // where what was not saved is kept while the page loads anew

let host;
let link;
const shown = [];
const lasting = new Map(); // by what fails again and again: its notice

/** Say that something didn't work. `again`, if given, tries it once more. Gives a function that closes the notice. */
export function fail(what, error, again) {
  if (error.name === "AbortError") return () => {};
  return say(failure(what, error), "error", again, what);
}

function failure(what, error) {
  const {status, message, decided} = error;
  if (decided && status === 0) return `${what} may not have been saved: ${lower(message)}`;
  if (decided && status === 403) return `${what} was not saved: ${lower(message)}`;
  return `${what} did not work: ${lower(message)}`;
}

/** Say once that something fails that is tried again and again, as long as it does; `error` null: it works. */
export function failing(what, error) {
  const sentence = error && `${what} can't be read: ${lower(error.message)}`;
  const old = lasting.get(what);
  if (old?.sentence === sentence) return;
  old?.close();
  if (sentence) lasting.set(what, {sentence, close: say(sentence, "error")});
  else lasting.delete(what);
}

function lower(sentence) {
  return /^\p{Lu}\p{Lu}/u.test(sentence) ? sentence : sentence.charAt(0).toLowerCase() + sentence.slice(1);
}

/** Show a notice: "note" for a while, "lasting" and "error" until it is closed. Gives a function that closes it. */
export function say(sentence, kind = "note", again = null, what = "") {
  // Two that can be tried again are two decisions, even where they read the same.
  const old = !again && shown.find((each) => each.dataset.sentence === sentence);
  if (old) close(old);
  const notice = h(
    "div",
    {class: `notice ${kind}`, role: kind === "error" ? "alert" : "status", dir: "auto"},
    h("p", {}, sentence),
    again && h("button", {type: "button", onclick: () => (close(notice), again())}, "Try again"),
    h("button", {type: "button", class: "quiet", "aria-label": "Close this note", onclick: () => close(notice)}, icon("close")),
  );
  notice.dataset.sentence = sentence;
  if (again) notice.dataset.unsaved = what;
  shown.push(notice);
  const others = shown.filter((each) => each.dataset.unsaved === undefined);
  for (const each of others.slice(0, -MOST)) close(each);
  host.append(notice);
  if (kind === "note") setTimeout(() => close(notice), 6000);
  return () => close(notice);
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
  listen("gone", (unsent) => {
    const failed = shown.map((each) => each.dataset.unsaved);
    keepWords([...unsent, ...failed].filter(Boolean));
    location.reload();
  });
  sayLastWords();
}

function keepWords(unsaved) {
  try {
    sessionStorage.setItem(LAST_WORDS, JSON.stringify(unsaved));
  } catch {
    // Then it isn't said; the page shows what is saved.
  }
}

/** After the studio has become another one: why the page is another one too, and what was lost on the way. */
function sayLastWords() {
  let words = null;
  try {
    words = JSON.parse(sessionStorage.getItem(LAST_WORDS));
    sessionStorage.removeItem(LAST_WORDS);
  } catch {
    // There are none.
  }
  if (!Array.isArray(words)) return;
  const times = new Map();
  for (const each of words.map(lower)) times.set(each, (times.get(each) ?? 0) + 1);
  const lost = [...times].map(([each, number]) => (number > 1 ? `${each} (${number} times)` : each)).join("; ");
  say(
    "The studio was started again with other images or clusters, so this page was loaded anew. " +
      (lost ? `Not saved: ${lost}.` : "Nothing was waiting to be saved."),
    "lasting",
  );
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
