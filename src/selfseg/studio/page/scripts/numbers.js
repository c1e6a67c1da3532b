// Numbers as the person's language writes them: 12,3 % or 12.3%. Nothing that is shown is ever read back.

const languages = navigator.languages?.length ? [...navigator.languages] : undefined;
const plain = new Intl.NumberFormat(languages);
const whole = new Intl.NumberFormat(languages, {style: "percent", maximumFractionDigits: 0});
const fine = new Intl.NumberFormat(languages, {style: "percent", maximumFractionDigits: 1});
const clock = new Intl.DateTimeFormat(languages, {hour: "2-digit", minute: "2-digit", second: "2-digit"});

export const count = (value) => plain.format(value);
export const time = (date) => clock.format(date);

/** A share in [0, 1]: in whole per cents, small ones with a decimal. */
export function percent(share) {
  if (share > 0 && share < 0.001) return `< ${fine.format(0.001)}`;
  return (share > 0 && share < 0.0995 ? fine : whole).format(share);
}

/** A size of a file. */
export function bytes(size) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(size, 1)) / 3));
  const form = {style: "unit", unit: units[step], unitDisplay: "short", maximumSignificantDigits: 3};
  return new Intl.NumberFormat(languages, form).format(size / 1000 ** step);
}

/** "1 image", "12 images". */
export function several(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
