// Numbers as the person's language writes them: 12,3 % or 12.3%. Nothing that is shown is ever read back.

const languages = navigator.languages?.length ? [...navigator.languages] : undefined;
const plain = new Intl.NumberFormat(languages);
const whole = new Intl.NumberFormat(languages, {style: "percent", maximumFractionDigits: 0});
const fine = new Intl.NumberFormat(languages, {style: "percent", maximumFractionDigits: 1});
const clock = new Intl.DateTimeFormat(languages, {hour: "2-digit", minute: "2-digit", second: "2-digit"});

export const count = (value) => plain.format(value);
export const time = (date) => clock.format(date);

/** A share in [0, 1]: in whole per cents, small ones with a decimal; null: it is not counted yet. */
export function percent(share) {
  if (share === null) return "counting …";
  if (share > 0 && share < 0.001) return `< ${fine.format(0.001)}`;
  return (share > 0 && share < 0.0995 ? fine : whole).format(share);
}

const WAYS = {
  down: Math.floor,
  up: Math.ceil,
  // Like the studio's sentences: halves to the even number.
  nearest: (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)),
};

/** A measured share as the studio's sentences write it: rounded "down", "up" or to the "nearest" per cent. */
export function measured(share, way = "nearest") {
  const round = (value) => WAYS[way](Number(value.toFixed(9)));
  const per100 = round(100 * share);
  const exact = (per100 > 0 && per100 < 100) || share === 0 || share === 1;
  return exact ? whole.format(per100 / 100) : fine.format(round(1000 * share) / 1000);
}

/** The two ends of an interval, rounded outward: it holds what it says. */
export const ends = (low, high) => [measured(low, "down"), measured(high, "up")];

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
