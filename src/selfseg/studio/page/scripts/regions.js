// An image's superpixels and their merge tree, as the studio sends them; segments at any level are made here.

export const NONE = 65535;
const GROWS = 1.15; // a step of the wheel changes a segment's area by at least so much

export class Regions {
  /** @param {ArrayBuffer} bytes uint32 h, w, n; h * w uint16; merges as float32 triples. */
  constructor(bytes) {
    const [height, width, n] = new Uint32Array(bytes.slice(0, 12));
    const end = 12 + 2 * height * width;
    Object.assign(this, {height, width, n});
    this.map = new Uint16Array(bytes.slice(12, end));
    const triples = new Float32Array(bytes.slice(end));
    this.merges = Math.floor(triples.length / 3);
    // Numbers of 0 to n - 1 are superpixels, n + i is what merge i made: here all become superpixels.
    this.pairs = new Int32Array(2 * this.merges);
    for (let i = 0; i < this.merges; i += 1) {
      for (const side of [0, 1]) {
        const node = triples[3 * i + side];
        this.pairs[2 * i + side] = node < n ? node : this.pairs[2 * (node - n)];
      }
    }
    this.areas = new Float64Array(n); // share of the image
    this.boxes = new Int32Array(4 * n); // left, top, right, bottom, the last two outside
    for (let i = 0; i < n; i += 1) this.boxes.set([width, height, 0, 0], 4 * i);
    let place = 0;
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, place += 1) {
        const id = this.map[place];
        if (id === NONE) continue; // nothing was measured there
        const box = 4 * id;
        this.areas[id] += 1;
        if (x < this.boxes[box]) this.boxes[box] = x;
        if (y < this.boxes[box + 1]) this.boxes[box + 1] = y;
        if (x >= this.boxes[box + 2]) this.boxes[box + 2] = x + 1;
        if (y >= this.boxes[box + 3]) this.boxes[box + 3] = y + 1;
      }
    }
    for (let i = 0; i < n; i += 1) this.areas[i] /= height * width;
    this.ladders = new Map();
    this.cut = null;
  }

  /** The superpixel at x, y in [0, 1]; NONE where nothing was measured. */
  at(x, y) {
    const column = Math.min(this.width - 1, Math.max(0, Math.floor(x * this.width)));
    const row = Math.min(this.height - 1, Math.max(0, Math.floor(y * this.height)));
    return this.map[row * this.width + column];
  }

  /** The level that an image really has: from 1 segment to all superpixels. */
  clamp(level) {
    return Math.max(1, this.n - this.merges, Math.min(this.n, Math.round(level)));
  }

  /** The segment of each superpixel (one superpixel stands for it) when the image is cut into `level` segments. */
  groups(level) {
    const applied = this.n - this.clamp(level);
    if (this.cut?.applied === applied) return this.cut.groups;
    const parent = new Int32Array(this.n).map((_, i) => i);
    const root = (id) => {
      while (parent[id] !== id) id = parent[id] = parent[parent[id]];
      return id;
    };
    for (let i = 0; i < applied; i += 1) parent[root(this.pairs[2 * i + 1])] = root(this.pairs[2 * i]);
    const groups = new Int32Array(this.n).map((_, i) => root(i));
    this.cut = {applied, groups};
    return groups;
  }

  /** The superpixels of the segment that holds one. */
  members(id, level) {
    const groups = this.groups(level);
    const found = [];
    for (let other = 0; other < this.n; other += 1) if (groups[other] === groups[id]) found.push(other);
    return found;
  }

  area(members) {
    return members.reduce((sum, id) => sum + this.areas[id], 0);
  }

  /** The segments that a superpixel is in, small to large: [merges that made it, its area]. */
  ladder(id) {
    if (!this.ladders.has(id)) {
      const parent = new Int32Array(this.n).map((_, i) => i);
      const areas = Float64Array.from(this.areas);
      const root = (each) => {
        while (parent[each] !== each) each = parent[each] = parent[parent[each]];
        return each;
      };
      const steps = [[0, areas[id]]];
      let own = id;
      for (let i = 0; i < this.merges; i += 1) {
        const [a, b] = [root(this.pairs[2 * i]), root(this.pairs[2 * i + 1])];
        parent[b] = a;
        areas[a] += areas[b];
        if (a === own || b === own) {
          own = a;
          steps.push([i + 1, areas[a]]);
        }
      }
      this.ladders.set(id, steps);
    }
    return this.ladders.get(id);
  }

  /** The level at which the segment that holds a superpixel becomes visibly larger, or smaller. */
  step(id, level, larger) {
    const applied = this.n - this.clamp(level);
    const steps = this.ladder(id);
    const now = steps.findLast(([merges]) => merges <= applied);
    const next = larger
      ? steps.find(([, area]) => area >= now[1] * GROWS)
      : steps.findLast(([, area]) => area <= now[1] / GROWS);
    if (next) return this.n - next[0];
    return larger ? level : this.n;
  }

  /** The outline of some superpixels, along the edges of pixels, in pixels of the map. */
  outline(members) {
    const inside = new Uint8Array(this.n);
    let [left, top, right, bottom] = [this.width, this.height, 0, 0];
    for (const id of members) {
      inside[id] = 1;
      left = Math.min(left, this.boxes[4 * id]);
      top = Math.min(top, this.boxes[4 * id + 1]);
      right = Math.max(right, this.boxes[4 * id + 2]);
      bottom = Math.max(bottom, this.boxes[4 * id + 3]);
    }
    const path = new Path2D();
    const is = (x, y) =>
      x >= left && y >= top && x < right && y < bottom ? inside[this.map[y * this.width + x]] ?? 0 : 0;
    const line = (from, to, fixed, across) => {
      path.moveTo(across ? from : fixed, across ? fixed : from);
      path.lineTo(across ? to : fixed, across ? fixed : to);
    };
    for (let y = top; y <= bottom; y += 1) {
      let from = -1;
      for (let x = left; x <= right; x += 1) {
        const edge = x < right && is(x, y) !== is(x, y - 1);
        if (edge && from < 0) from = x;
        if (!edge && from >= 0) (line(from, x, y, true), (from = -1));
      }
    }
    for (let x = left; x <= right; x += 1) {
      let from = -1;
      for (let y = top; y <= bottom; y += 1) {
        const edge = y < bottom && is(x, y) !== is(x - 1, y);
        if (edge && from < 0) from = y;
        if (!edge && from >= 0) (line(from, y, x, false), (from = -1));
      }
    }
    return path;
  }
}

export class Prediction {
  /** @param {ArrayBuffer} bytes uint32 n; n uint16 classes; n float32 certainties. */
  constructor(bytes) {
    const [n] = new Uint32Array(bytes.slice(0, 4));
    this.classes = new Uint16Array(bytes.slice(4, 4 + 2 * n));
    this.certainty = new Float32Array(bytes.slice(4 + 2 * n, 4 + 6 * n));
  }

  /** As it comes in the answer to a click. */
  static fromBase64(text) {
    return new Prediction(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  }
}
