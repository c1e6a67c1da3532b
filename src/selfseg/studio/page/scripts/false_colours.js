// Measured channels are no colours: which of them is shown as which, and a person's choice of that.

import {h, icon, typed} from "./dom.js";
import {store} from "./store.js";

const COLOURS = ["red", "green", "blue"];

/** The choice of this browser for images with these channels: "pca", or numbers as "2,0,1"; null for the studio's own. */
function chosen() {
  try {
    return localStorage.getItem(place());
  } catch {
    return null;
  }
}

function place() {
  return `selfseg-channels ${JSON.stringify(store.state.channels)}`;
}

/** The address of a picture, in the colours that were chosen. */
export function inColours(address) {
  if (!store.state?.channels.length) return address;
  const choice = chosen();
  return choice === null ? address : `${address}&channels=${encodeURIComponent(choice)}`;
}

/** What stands below pictures of measured images; null where they are photographs. */
export function colourNote() {
  if (!store.state?.channels.length) return null;
  return h(
    "p",
    {class: "colour-note"},
    h("b", {}, "False colours: "),
    typed(legend()),
    store.state.channels.length > 1 && [" ", h("button", {type: "button", class: "link", onclick: choose}, "Choose channels")],
  );
}

function legend() {
  const {channels, legend: own} = store.state;
  const choice = chosen();
  if (choice === null) return own;
  if (choice === "pca") return "the first three principal components of all channels";
  const names = choice.split(",").map((each) => channels[Number(each)]);
  const colours = names.length === 1 ? ["gray"] : names.length === 2 ? ["orange", "blue"] : COLOURS;
  return names.map((name, i) => `${colours[i]}: ${name}`).join(", ");
}

function choose() {
  const {channels} = store.state;
  const now = chosen();
  const kinds = [
    ["", "As the studio proposes"],
    ...(channels.length > 3 ? [["pca", "Principal components of all channels"]] : []),
    ...(channels.length > 2 ? [["three", "Three channels as red, green and blue"]] : []),
    ["one", "One channel in gray"],
  ];
  const numbers = now && now !== "pca" ? now.split(",").map(Number) : [0, 1, 2];
  const kind = h(
    "select",
    {id: "colour-kind", onchange: () => show()},
    kinds.map(([value, words]) => h("option", {value, selected: value === kindOf(now)}, words)),
  );
  const select = (number, label) =>
    h(
      "label",
      {},
      `${label} `,
      h("select", {}, channels.map((name, i) => h("option", {value: String(i), selected: i === number}, name))),
    );
  const three = h("div", {class: "colour-channels"}, COLOURS.map((colour, i) => select(numbers[i] ?? i, `${colour[0].toUpperCase()}${colour.slice(1)}`)));
  const one = h("div", {class: "colour-channels"}, select(numbers[0], "Channel"));
  const told = h("p", {class: "hint", role: "status"});
  const values = (part) => [...part.querySelectorAll("select")].map((each) => each.value);
  const show = () => {
    three.hidden = kind.value !== "three";
    one.hidden = kind.value !== "one";
    told.textContent = "";
  };
  const keep = () => {
    const picked = {three: values(three), one: values(one), pca: ["pca"]}[kind.value] ?? null;
    if (picked && new Set(picked).size < picked.length) {
      told.textContent = "Choose three different channels.";
      return;
    }
    try {
      if (picked) localStorage.setItem(place(), picked.join(","));
      else localStorage.removeItem(place());
    } catch {
      told.textContent = "This browser keeps nothing, so it can’t keep the choice.";
      return;
    }
    location.reload(); // every picture is another one
  };
  const dialog = h(
    "dialog",
    {class: "asking", "aria-label": "Channels that are shown"},
    h(
      "header",
      {},
      h("h2", {}, "Which channels are shown"),
      h("button", {type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close()}, icon("close")),
    ),
    h("p", {class: "hint"}, "This changes what you see and nothing else: segments and clusters follow from all channels. Striped areas are those where nothing was measured."),
    h("p", {}, h("label", {for: "colour-kind"}, "Shown "), kind),
    three,
    one,
    told,
    h("p", {}, h("button", {type: "button", class: "primary", onclick: keep}, "Show them")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  show();
  document.body.append(dialog);
  dialog.showModal();
}

function kindOf(choice) {
  if (choice === null) return "";
  if (choice === "pca") return "pca";
  return choice.includes(",") ? "three" : "one";
}
