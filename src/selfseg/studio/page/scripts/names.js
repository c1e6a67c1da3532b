// A field for a name, with the names in use to choose from. The same name makes things one class.

import {h, typed} from "./dom.js";
import {palette} from "./store.js";

let fields = 0;

/**
 * A field that offers names in use.
 *
 * onname(name) is called with what was chosen; onleave() when Escape is pressed; onblur() when the focus has gone and
 * nothing was chosen; `empty`: whether "" may be chosen; `keepOnBlur`: whether what was typed is chosen when the person
 * goes elsewhere. Where a name is an answer to a question, a half-typed one is none.
 */
export function nameField({
  label,
  placeholder = "Name …",
  value = "",
  empty = true,
  keepOnBlur = false,
  onname,
  onleave = () => {},
  onblur = () => {},
}) {
  fields += 1;
  const id = `names-${fields}`;
  let shown = [];
  let active = -1;
  let kept = value;
  let held = false; // the element is being moved: losing the focus by that decides nothing
  const input = h("input", {
    type: "text",
    class: "name",
    dir: "auto",
    maxlength: 200,
    value,
    placeholder,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    enterkeyhint: "done",
    role: "combobox",
    "aria-label": label,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": id,
  });
  const list = h("ul", {id, class: "suggestions", role: "listbox", "aria-label": "Names in use", hidden: true});

  const show = (all) => {
    const wanted = input.value.trim().toLocaleLowerCase();
    shown = palette()
      .map((one, number) => ({...one, number}))
      .filter(({name}) => all || name.toLocaleLowerCase().includes(wanted))
      .slice(0, 50);
    active = -1;
    list.replaceChildren(
      ...shown.map((one, place) =>
        h(
          "li",
          {
            id: `${id}-${place}`,
            role: "option",
            "aria-selected": "false",
            onpointerdown: (event) => {
              event.preventDefault();
              choose(one.name);
            },
          },
          h("span", {class: "dot", style: {"--colour": one.colour}}),
          typed(one.name),
        ),
      ),
    );
    list.hidden = shown.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  };
  const hide = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
  };
  const move = (by) => {
    if (list.hidden) show(true);
    if (!shown.length) return;
    active = (active + by + shown.length + (active < 0 && by < 0 ? 1 : 0)) % shown.length;
    [...list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === active)));
    list.children[active].scrollIntoView({block: "nearest"});
    input.setAttribute("aria-activedescendant", `${id}-${active}`);
  };
  const choose = (name) => {
    const clean = name.normalize("NFC").trim(); // as the studio keeps it
    hide();
    if (!clean && !empty) return;
    const changed = clean !== kept;
    kept = input.value = clean;
    onname(clean, changed);
  };

  input.addEventListener("focus", () => show(input.value === kept));
  input.addEventListener("input", () => show(false));
  input.addEventListener("blur", () => {
    if (held || document.activeElement === input) return; // moved, or the person looks at another window
    hide();
    if (keepOnBlur && input.isConnected) {
      if (input.value.normalize("NFC").trim() !== kept) choose(input.value);
      return;
    }
    input.value = kept;
    onblur();
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      move(event.key === "ArrowDown" ? 1 : -1);
      event.preventDefault();
    } else if (event.key === "Enter") {
      choose(active >= 0 ? shown[active].name : input.value);
      event.preventDefault();
    } else if (event.key === "Escape") {
      input.value = kept;
      hide();
      onleave();
    }
    event.stopPropagation();
  });

  return {
    element: h("div", {class: "name-field"}, input, list),
    input,
    /** Do what may move or remove the field; if it is still there, the person goes on typing in it. */
    holding(action) {
      const [typing, start, end] = [document.activeElement === input, input.selectionStart, input.selectionEnd];
      held = typing;
      action();
      if (typing && input.isConnected && document.activeElement !== input) {
        input.focus({preventScroll: true});
        input.setSelectionRange(start, end);
      }
      held = false;
    },
    /** Show a name that came from elsewhere, unless the person is typing. */
    set(name) {
      if (document.activeElement === input && input.value !== kept) return;
      kept = input.value = name;
    },
  };
}
