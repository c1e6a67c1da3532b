// The class that a click gives: a name, null to erase, undefined while none was chosen.

const events = new EventTarget();

export const brush = {
  name: undefined,
  choose(name) {
    if (brush.name === name) return;
    brush.name = name;
    events.dispatchEvent(new Event("change"));
  },
  listen(listener) {
    events.addEventListener("change", listener);
  },
};
