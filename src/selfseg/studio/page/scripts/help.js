// The overlay that "?" opens: every key and gesture.

import {h, icon} from "./dom.js";

const TABLES = [
  [
    "Everywhere",
    [
      ["Z", "undo"],
      ["Shift Z", "redo"],
      ["Alt 1 … 5", "go to a part"],
      ["?", "this help"],
    ],
  ],
  [
    "1 Concepts",
    [
      ["← → ↑ ↓", "go from card to card"],
      ["Enter", "type a name; Enter again keeps it and goes to the next card without one"],
      ["1 … 9", "give the card a name in use; with Shift the next nine"],
      ["Delete", "take the name away"],
      ["S", "split, then 2 … 8"],
      ["J", "join the parts again"],
      ["X", "leave out, or take in again"],
    ],
  ],
  [
    "2 Images, 3 What next?",
    [
      ["click", "give the segment under the pointer the chosen class"],
      ["drag", "paint: every segment on the way"],
      ["Alt click", "take back what was clicked there; so does the class “Take back” (E)"],
      ["wheel", "make the segment under the pointer larger or smaller ([ and ] too)"],
      ["Ctrl wheel", "zoom; so do pinching, + and −; F shows the whole image"],
      ["Shift drag", "move the image; so do the right button and two fingers"],
      ["1 … 9", "choose the class; in part 3, answer with it"],
      ["Space", "next image, or pass over the question; Shift Space goes back"],
      ["M", "prediction, uncertainty, edges, photograph"],
      ["← → ↑ ↓, Enter", "on the image: move the mark, give its segment the class"],
    ],
  ],
  [
    "4 How good is it?",
    [
      ["Y", "yes, right"],
      ["1 … 9", "no, it is this class"],
      ["N", "no, none of the names"],
      ["U", "can’t tell"],
      ["←", "back"],
      ["drag", "move the image; Ctrl wheel and pinching zoom"],
    ],
  ],
];

let dialog = null;

export function help() {
  dialog ??= make();
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function make() {
  const close = h("button", {type: "button", class: "quiet", "aria-label": "Close", onclick: () => made.close()}, icon("close"));
  const made = h(
    "dialog",
    {class: "help", "aria-label": "Keys and gestures"},
    h("header", {}, h("h2", {}, "Keys and gestures"), close),
    h(
      "div",
      {class: "tables"},
      TABLES.map(([title, rows]) =>
        h(
          "section",
          {},
          h("h3", {}, title),
          h(
            "dl",
            {},
            rows.map(([key, words]) => h("div", {}, h("dt", {}, key.split(" ").map((each) => (/^[…,]$/.test(each) ? each : h("kbd", {}, each)))), h("dd", {}, words))),
          ),
        ),
      ),
    ),
    h("p", {class: "hint"}, "On a touch screen: one finger paints, two fingers zoom and move. Every decision is on the disk when “Saved” shows."),
  );
  made.addEventListener("click", (event) => event.target === made && made.close());
  document.body.append(made);
  return made;
}
