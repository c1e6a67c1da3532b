// What an audit says, as it is read, printed and quoted.

import {h, icon, typed} from "./dom.js";
import {count, ends, measured, several} from "./numbers.js";
import {store} from "./store.js";

/** The result of an audit; `goOn`, `review` and `again` are called when the person wants that. */
export function result(audit, {goOn, review, again}) {
  const left = audit.places.length - audit.answered;
  const date = new Intl.DateTimeFormat(undefined, {dateStyle: "long"}).format(new Date());
  const [low, high] = ends(audit.low, audit.high);
  return h(
    "article",
    {class: "panel result"},
    left > 0 &&
      h(
        "p",
        {class: "hint strong"},
        `Only ${count(audit.answered)} of ${count(audit.places.length)} places are judged. `,
        "The result below is for these alone, and is fair only if you go on to the end whatever it says. ",
        h("button", {type: "button", onclick: goOn}, "Go on judging"),
      ),
    audit.decisionsSince > 0 &&
      h(
        "p",
        {class: "hint strong"},
        `${several(audit.decisionsSince, "decision")} came after this audit began. `,
        "The result is about the predictions before them. ",
        h("button", {type: "button", onclick: again}, "Audit again, with new places"),
      ),
    h(
      "div",
      {class: "verdict"},
      h(
        "p",
        {class: "accuracy"},
        audit.accuracy === null ? "–" : measured(audit.accuracy),
        h("small", {}, "of the judged places are right"),
      ),
      h(
        "div",
        {},
        interval(audit.low, audit.high, audit.accuracy, "true share of right pixels"),
        h("p", {}, `With ${measured(0.95)} confidence between `, h("b", {}, low), " and ", h("b", {}, high), "."),
      ),
    ),
    h("p", {class: "sentence", dir: "auto"}, audit.sentence),
    nameless(audit),
    audit.perClass.length > 0 && table(audit),
    audit.limits.length > 0 && [
      h("h2", {}, "What this does not cover"),
      h("ul", {class: "plain"}, audit.limits.map((each) => h("li", {dir: "auto"}, each))),
    ],
    h(
      "p",
      {class: "about"},
      `Run ${store.state.run}, ${several(store.state.images, "image")}, `,
      `${several(audit.places.length, "place")} at random, ${date}.`,
    ),
    h(
      "p",
      {class: "steps"},
      h("button", {type: "button", onclick: () => window.print()}, icon("print"), "Print"),
      h("button", {type: "button", onclick: review}, "Look at the places again"),
      h("button", {type: "button", onclick: again}, "New audit"),
    ),
  );
}

/** Where few things have a name, most places are rightly none of the names, and the number says little of the names. */
function nameless({places}) {
  const judged = places.filter((each) => each.verdict !== null && each.verdict !== "unsure");
  const without = judged.filter((each) => each.predicted === "");
  if (!without.length) return null;
  const named = judged.filter((each) => each.predicted !== "");
  const outcome = (those) => {
    const right = those.filter((each) => each.verdict === each.predicted).length;
    return `${count(right)} of ${several(those.length, "place")} ${right === 1 ? "is" : "are"} right`;
  };
  return h(
    "p",
    {class: "sentence"},
    `“None of the names” counts as well: where that was predicted, ${outcome(without)}. `,
    named.length > 0
      ? `Where a name was predicted, ${outcome(named)}.`
      : "No name was predicted at any judged place, so this says nothing about the names.",
  );
}

function table(audit) {
  const rows = audit.perClass.map(({name, right, judged, low, high}) => {
    const own = store.state.classes.find((each) => each.name === name);
    return h(
      "tr",
      {},
      h(
        "th",
        {scope: "row"},
        h("span", {class: "dot", style: {"--colour": own?.colour ?? "#888888"}}),
        name ? typed(name) : "none of the names",
      ),
      h("td", {}, judged ? `${count(right)} of ${count(judged)}` : "–"),
      h(
        "td",
        {class: "wide"},
        judged > 0 ? interval(low, high, right / judged, name) : h("small", {}, "no place fell on it"),
      ),
      h("td", {}, judged > 0 && ends(low, high).join(" – ")),
    );
  });
  const head = ["Class", "Right", `${measured(0.95)} interval`, ""];
  return [
    h("h2", {}, "Where a class is predicted, how often is it right?"),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, head.map((each) => h("th", {scope: "col"}, each)))),
      h("tbody", {}, rows),
    ),
    h("p", {class: "hint"}, "A class with few places has a wide interval, because little is known about it."),
  ];
}

/** An interval on a scale from nothing to all. */
function interval(low, high, middle, what) {
  return h(
    "div",
    {
      class: "interval",
      role: "img",
      "aria-label": `${what}: ${ends(low, high).join(" to ")}`,
      style: {"--low": low, "--high": high, "--middle": middle ?? (low + high) / 2},
    },
    h("i", {class: "range"}),
    middle !== null && h("i", {class: "middle"}),
  );
}
