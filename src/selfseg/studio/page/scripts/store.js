// What the page knows of the studio, and who wants to hear of it.

import {get, heard, listen, pending, post} from "./api.js";
import {afterPress} from "./dom.js";
import {fail, failing} from "./notices.js";

const PULSE = 2000; // ms

export const store = {
  state: null,
  /** Names that were typed in Images and have no segment yet. */
  drafts: [],
};

const listeners = new Set();
let asked = 0; // decisions answered so far: an answer that was asked for before is old
let later = null;

/** Call `listener(state)` now and after every change; gives a function that ends it. */
export function subscribe(listener) {
  listeners.add(listener);
  if (store.state) listener(store.state);
  return () => listeners.delete(listener);
}

function publish(state) {
  store.state = state;
  const used = new Set(state.classes.map((each) => each.name));
  store.drafts = store.drafts.filter((draft) => !used.has(draft.name));
  for (const listener of listeners) listener(state);
}

export async function refresh() {
  const before = asked;
  const state = await get("/api/state");
  heard(state.session);
  await afterPress();
  if (before === asked && !pending()) publish(state);
  else refreshSoon();
}

/** Something was decided whose answer is not the state: what was asked before is old. */
export function decided() {
  asked += 1;
  refresh().catch(() => {});
}

function refreshSoon() {
  clearTimeout(later);
  later = setTimeout(() => refresh().catch(() => {}), 700);
}

/** Send a decision whose answer is the new state. Tells the person if it can't be, and gives whether it was kept. */
export async function decide(path, body, what) {
  try {
    const state = await post(path, body, what);
    heard(state.session);
    const own = (asked += 1);
    await afterPress();
    if (own === asked) publish(state);
    return true;
  } catch (error) {
    fail(what, error, () => decide(path, body, what));
    return false;
  }
}

/** Take in a part of the state that came with another answer. */
export function patch(part) {
  asked += 1;
  publish({...store.state, ...part});
  refreshSoon();
}

/** Of the classes and the names to come: {name, colour, draft}. */
export function palette() {
  const state = store.state;
  return state ? [...state.classes, ...store.drafts] : [];
}

const SAFE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];

/** Add a name that has no segment yet. */
export function draft(name) {
  if (palette().some((each) => each.name === name)) return;
  const taken = new Set(palette().map((each) => each.colour));
  const colour = SAFE.find((each) => !taken.has(each)) ?? "#777777";
  store.drafts = [...store.drafts, {name, colour, regions: 0, share: 0, draft: true}];
  publish(store.state);
}

async function beat() {
  if (document.visibilityState === "visible" || !store.state) {
    try {
      if (!store.state) await refresh();
      const pulse = await get("/api/pulse");
      heard(pulse.session);
      if (pulse.version !== store.state?.version && !pending()) await refresh();
      else if (store.state && pulse.busy !== store.state.busy) publish({...store.state, busy: pulse.busy});
      failing("The state of the studio", null);
    } catch (error) {
      // The next beat tries again. If there is no answer at all, the notice about the connection says it.
      if (error.status >= 400 && error.status !== 403) failing("The state of the studio", error);
    }
  }
  setTimeout(beat, PULSE);
}

export function start() {
  listen("connection", (how) => {
    if (how === "ok" && store.state) refresh().catch(() => {});
  });
  beat();
}
