// A question before something that can't be taken back.

import {h} from "./dom.js";

/** Ask; fulfilled with whether the person said yes. Escape, and Enter at once, mean no. */
export function asked({question, words, yes, no}) {
  return new Promise((answer) => {
    const button = (label, value, props) =>
      h("button", {type: "button", ...props, onclick: () => box.close(value)}, label);
    const box = h(
      "dialog",
      {class: "asking", "aria-label": question},
      h("h2", {}, question),
      h("p", {}, words),
      h("p", {class: "steps"}, button(no, "", {class: "primary", autofocus: true}), button(yes, "yes", {})),
    );
    const before = document.activeElement;
    box.addEventListener("close", () => {
      box.remove();
      if (before?.isConnected) before.focus();
      answer(box.returnValue === "yes");
    });
    document.body.append(box);
    box.showModal();
  });
}
