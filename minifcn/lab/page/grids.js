/*
 * The grids of the page, as descriptions for makeGrid: scores, filter and image, and what the views add to them. A
 * scene is everything about the layer that is shown: {config, axes: [height, width], y, w, x, H, W}. `room` is how much
 * place there is: {width, height}.
 */
const largest = (values) => Math.max(...values.map((row) => Math.max(...row.map(Math.abs))));
const same = (a, b, ...keys) => keys.every((key) => a[key] === b[key]);

function scoresGrid({ axes: [height, width], y }, room) {
  const most = largest(y);
  return {
    label: "scores y",
    ...room,
    rows: height.input,
    columns: width.input,
    look: (p, q) => ({ fill: valueFill("score", y[p][q], most), texts: numerals(y[p][q]) }),
    name: (p, q) => `y[${p}, ${q}] = ${written(y[p][q])}`,
    target: (p, q) => ({ kind: "score", p, q }),
    marks: ({ products, ...at }) => [
      ...products.map(({ p, q }) => [p, q, "score"]),
      ...(at.kind === "score" ? [[at.p, at.q, "ring"]] : []),
    ],
  };
}

/** The filter, or the part of it in some rows and columns; `turn` it by 180°; other colours (`fill`) and marks. */
function filterGrid({ axes, w }, room, options = {}) {
  const { label = "filter w", turn = false, fill, mark = "tap" } = options;
  const { rows = lab.count(axes[0].kernel), columns = lab.count(axes[1].kernel) } = options;
  const most = largest(w);
  const [down, across] = turn ? [rows.slice().reverse(), columns.slice().reverse()] : [rows, columns];
  return {
    label,
    ...room,
    rows: down.length,
    columns: across.length,
    look: (r, c) => ({
      fill: fill ? fill(down[r], across[c]) : valueFill("tap", w[down[r]][across[c]], most),
      texts: numerals(w[down[r]][across[c]]),
    }),
    name: (r, c) => `w[${down[r]}, ${across[c]}] = ${written(w[down[r]][across[c]])}`,
    target: (r, c) => ({ kind: "tap", i: down[r], j: across[c] }),
    marks: ({ products, ...at }) => {
      const place = (i, j, kind) => [down.indexOf(i), across.indexOf(j), kind];
      const marks = products.map(({ i, j }) => place(i, j, mark));
      if (at.kind === "tap") marks.push(place(at.i, at.j, "ring"));
      return marks.filter(([r, c]) => r >= 0 && c >= 0);
    },
  };
}

/** The image, or those of its pixels in rows hs and columns vs; `look` and `name` show something else than values. */
function imageGrid({ H, W, x }, room, { label = "image x", hs = lab.count(H), vs = lab.count(W), look, name } = {}) {
  const most = largest(x);
  const value = (h, v) => ({ fill: valueFill("image", x[h][v], most), texts: numerals(x[h][v]) });
  return {
    label,
    ...room,
    rows: hs.length,
    columns: vs.length,
    look: (r, c) => (look ?? value)(hs[r], vs[c]),
    name: (r, c) => `x[${hs[r]}, ${vs[c]}] = ${name ? name(hs[r], vs[c]) : written(x[hs[r]][vs[c]])}`,
    target: (r, c) => ({ kind: "image", h: hs[r], v: vs[c] }),
    marks: ({ products, ...at }) => {
      const place = (h, v, kind) => [hs.indexOf(h), vs.indexOf(v), kind];
      const marks = products.filter(({ inside }) => inside).map(({ h, v }) => place(h, v, "image"));
      if (at.kind === "image") marks.push(place(at.h, at.v, "image"), place(at.h, at.v, "ring"));
      return marks.filter(([r, c]) => r >= 0 && c >= 0);
    },
  };
}

/** All stamps side by side, score by score: the multiples of the filter that are about to be added up. */
function stampsGrid({ axes: [height, width], y, w }, room) {
  const [I, J] = [height.kernel, width.kernel];
  const term = (r, c) => ({ p: Math.floor(r / I), q: Math.floor(c / J), i: r % I, j: c % J });
  const value = ({ p, q, i, j }) => y[p][q] * w[i][j];
  const most = largest(y) * largest(w);
  return {
    label: "the stamp of each score",
    ...room,
    rows: height.input * I,
    columns: width.input * J,
    breakRow: (r) => I > 1 && r % I === 0,
    breakColumn: (c) => J > 1 && c % J === 0,
    look: (r, c) => ({ fill: valueFill("image", value(term(r, c)), most), texts: numerals(value(term(r, c))) }),
    name: (r, c) => {
      const { p, q, i, j } = term(r, c);
      return `y[${p}, ${q}]·w[${i}, ${j}] = ${written(value({ p, q, i, j }))}`;
    },
    target: (r, c) => ({ kind: "term", ...term(r, c) }),
    marks: ({ products, ...at }) => [
      ...products.map(({ p, q, i, j, inside }) => [p * I + i, q * J + j, inside ? "image" : "band"]),
      ...(at.kind === "term" ? [[at.p * I + at.i, at.q * J + at.j, "ring"]] : []),
    ],
  };
}

/** The canvas on which the stamps lie, with the image in the middle and the cropped margin around it. */
function canvasGrid({ axes, y, w, H, W }, room) {
  const [height, width] = axes;
  const canvas = lab.stampCanvas(y, w, axes);
  const most = largest(canvas);
  const [top, left] = [height.padding, width.padding];
  const isImage = (r, c) => r >= top && r < top + H && c >= left && c < left + W;
  const rows = canvas.length;
  const columns = canvas[0].length;
  return {
    label: "all stamps, added up and cropped",
    ...room,
    rows,
    columns,
    breakRow: (r) => r === top || r === top + H,
    breakColumn: (c) => c === left || c === left + W,
    look: (r, c) =>
      isImage(r, c)
        ? { fill: valueFill("image", canvas[r][c], most), texts: numerals(canvas[r][c]) }
        : { fill: colour("cropped"), ink: colour("muted"), texts: numerals(canvas[r][c]), class: "cropped" },
    name: (r, c) => (isImage(r, c) ? `x[${r - top}, ${c - left}] = ` : "cropped: ") + written(canvas[r][c]),
    target: (r, c) =>
      isImage(r, c)
        ? { kind: "image", h: r - top, v: c - left }
        : { kind: "zero", what: "Padding crops this cell off the image." },
    marks: ({ products, ...at }) => {
      const marks = products.map(({ h, v, inside }) => [h + top, v + left, inside ? "image" : "band"]);
      if (at.kind === "image") marks.push([at.h + top, at.v + left, "image"], [at.h + top, at.v + left, "ring"]);
      return marks.filter(([r, c]) => r < rows && c < columns);
    },
  };
}

/** What lies at z of the zero-inserted scores, along one axis: "score", "between", "around", "extra" or "cropped". */
function whatLies(axis, z) {
  const size = lab.outputSize(axis) + lab.reach(axis);
  const from = z - lab.equivalentConvolution(axis).before; // counted from score 0
  if (z < 0 || z >= size) return "cropped";
  if (from >= 0 && from <= (axis.input - 1) * axis.stride) return from % axis.stride ? "between" : "score";
  return from > 0 && z >= size - axis.output_padding ? "extra" : "around";
}

const ZEROS = {
  between: "An inserted zero: multiplied like a score, it adds nothing.",
  around: "A zero of the p′ around the scores: it adds nothing.",
  extra: "A zero for output_padding: it makes room for one more position of the filter, and so for one more pixel.",
  cropped: "p′ is negative here: this is cropped before the filter sees it.",
};

/** Scores with zeros between and around them, what is cropped of them, and the footprint of a pixel. */
function zerosGrid({ axes, y }, room) {
  const shapes = axes.map((axis) => {
    const { before, after } = lab.equivalentConvolution(axis);
    const size = lab.outputSize(axis) + lab.reach(axis);
    const [first, last] = [Math.min(before, 0), size + Math.max(-after, 0)];
    return { axis, size, before, first, last, at: (k) => k + first };
  });
  const [down, across] = shapes;
  const kindOf = (r, c) => {
    const kinds = [whatLies(axes[0], down.at(r)), whatLies(axes[1], across.at(c))];
    for (const kind of ["cropped", "extra", "around", "between"]) if (kinds.includes(kind)) return kind;
    return "score";
  };
  const scoreAt = (r, c) => {
    const at = shapes.map(({ axis, before, at }, k) => (at([r, c][k]) - before) / axis.stride);
    return at.every((p, k) => Number.isInteger(p) && p >= 0 && p < axes[k].input) ? at : null;
  };
  const most = largest(y);
  const looks = {
    between: { fill: colour("between"), ink: colour("muted"), texts: ["0"] },
    around: { fill: colour("around"), ink: colour("muted"), texts: ["0"] },
    extra: { fill: colour("extra"), ink: colour("muted"), texts: ["0"], class: "extra" },
  };
  return {
    kindOf,
    label: "scores with zeros between and around them",
    ...room,
    rows: down.last - down.first,
    columns: across.last - across.first,
    breakRow: (r) => down.at(r) === 0 || down.at(r) === down.size,
    breakColumn: (c) => across.at(c) === 0 || across.at(c) === across.size,
    look: (r, c) => {
      const [kind, score] = [kindOf(r, c), scoreAt(r, c)];
      const texts = score ? numerals(y[score[0]][score[1]]) : ["0"];
      if (kind === "cropped") return { fill: colour("cropped"), ink: colour("muted"), texts, class: "cropped" };
      return kind === "score" ? { fill: valueFill("score", y[score[0]][score[1]], most), texts } : looks[kind];
    },
    name: (r, c) => {
      const [kind, score] = [kindOf(r, c), scoreAt(r, c)];
      const cropped = kind === "cropped" ? "cropped: " : "";
      return score ? `${cropped}y[${score[0]}, ${score[1]}] = ${written(y[score[0]][score[1]])}` : `${cropped}0`;
    },
    target: (r, c) => {
      const [kind, score] = [kindOf(r, c), scoreAt(r, c)];
      return score ? { kind: "score", p: score[0], q: score[1] } : { kind: "zero", what: ZEROS[kind] };
    },
    marks: ({ products, ...at }) => {
      const [height, width] = axes;
      const place = (p, q, kind) => [
        p * height.stride + down.before - down.first,
        q * width.stride + across.before - across.first,
        kind,
      ];
      const marks = products.map(({ p, q }) => place(p, q, "score"));
      const pixel = at.kind === "term" && products[0].inside ? products[0] : at;
      if ("h" in pixel) {
        for (const i of lab.count(height.kernel)) {
          for (const j of lab.count(width.kernel)) {
            marks.push([
              pixel.h + i * height.dilation - down.first,
              pixel.v + j * width.dilation - across.first,
              "ring",
            ]);
          }
        }
      } else if (at.kind === "score") marks.push(place(at.p, at.q, "ring"));
      return marks;
    },
  };
}

/**
 * C with the image above it and the scores at its left, or all of that transposed; the first row and column head it.
 * Of the pixels, those of image rows `from` to `to` are shown.
 */
function matrixGrid({ axes: [height, width], y, w, x, W }, room, { transposed, from, to }) {
  const [rows, columns] = [height.input * width.input, (to - from) * W];
  const [score, pixel] = [
    (k) => [Math.floor(k / width.input), k % width.input],
    (k) => [from + Math.floor(k / W), k % W],
  ];
  const [mostY, mostX] = [largest(y), largest(x)];
  const tapAt = (row, column) => {
    const [[p, q], [h, v]] = [score(row), pixel(column)];
    const [i, j] = [
      (h + height.padding - p * height.stride) / height.dilation,
      (v + width.padding - q * width.stride) / width.dilation,
    ];
    const isTap =
      Number.isInteger(i) && Number.isInteger(j) && i >= 0 && i < height.kernel && j >= 0 && j < width.kernel;
    return isTap ? [i, j] : null;
  };
  // row and column of C, −1 for the headers
  const at = (r, c) => (transposed ? [c - 1, r - 1] : [r - 1, c - 1]);
  const place = (row, column, kind) => (transposed ? [column + 1, row + 1, kind] : [row + 1, column + 1, kind]);
  const [breakScore, breakPixel] = [
    (k) => k === 1 || (k > 1 && width.input > 1 && (k - 1) % width.input === 0),
    (k) => k === 1 || (k > 1 && W > 1 && (k - 1) % W === 0),
  ];
  return {
    label: transposed ? "the matrix C transposed" : "the matrix C",
    ...room,
    rows: (transposed ? columns : rows) + 1,
    columns: (transposed ? rows : columns) + 1,
    breakRow: transposed ? breakPixel : breakScore,
    breakColumn: transposed ? breakScore : breakPixel,
    look: (r, c) => {
      const [row, column] = at(r, c);
      if (row < 0 && column < 0) return { fill: "transparent" };
      if (row < 0) {
        const [h, v] = pixel(column);
        return { fill: valueFill("image", x[h][v], mostX), texts: numerals(x[h][v]) };
      }
      if (column < 0) {
        const [p, q] = score(row);
        return { fill: valueFill("score", y[p][q], mostY), texts: numerals(y[p][q]) };
      }
      const tap = tapAt(row, column);
      if (!tap) return { fill: colour("between"), ink: colour("muted"), texts: ["0"] };
      return { fill: tint(tap[0], height.kernel, tap[1], width.kernel), texts: numerals(w[tap[0]][tap[1]]) };
    },
    name: (r, c) => {
      const [row, column] = at(r, c);
      const [of, to] = [`y[${score(row).join(", ")}]`, `x[${pixel(column).join(", ")}]`];
      if (row < 0) return column < 0 ? "corner" : `column of ${to}`;
      if (column < 0) return `row of ${of}`;
      const tap = tapAt(row, column);
      return `${of} to ${to}: ${tap ? `w[${tap.join(", ")}] = ${written(w[tap[0]][tap[1]])}` : "0"}`;
    },
    target: (r, c) => {
      const [row, column] = at(r, c);
      if (row < 0 && column < 0) return null;
      const [[p, q], [h, v]] = [score(row), pixel(column)];
      if (row < 0) return { kind: "image", h, v };
      if (column < 0) return { kind: "score", p, q };
      const tap = tapAt(row, column);
      return tap
        ? { kind: "term", p, q, i: tap[0], j: tap[1] }
        : { kind: "zero", what: `y[${p}, ${q}] does not reach x[${h}, ${v}]: C is 0 here.` };
    },
    marks: ({ products, ...at }) => {
      const marks = [];
      const columnOf = (h, v) => (h >= from && h < to ? (h - from) * W + v : NaN);
      const term = at.kind === "term" && products[0].inside ? products[0] : at;
      if ("h" in term) for (const row of lab.count(rows)) marks.push(place(row, columnOf(term.h, term.v), "band"));
      if ("p" in term)
        for (const column of lab.count(columns)) marks.push(place(term.p * width.input + term.q, column, "band"));
      for (const { p, q, h, v, inside } of products) {
        if (!inside) continue;
        marks.push(
          place(p * width.input + q, columnOf(h, v), "tap"),
          place(p * width.input + q, -1, "score"),
          place(-1, columnOf(h, v), "image"),
        );
      }
      return marks.filter(([r, c]) => r >= 0 && c >= 0); // which NaN is not
    },
  };
}

/** s × s cells, one for each pair of phases; pointing at one selects a pixel of it. */
function phasesGrid({ axes: [height, width], H, W }, room, { label, texts, fill, name }) {
  const [down, across] = [lab.phases(height), lab.phases(width)];
  return {
    label,
    ...room,
    rows: height.stride,
    columns: width.stride,
    look: (a, b) => ({ fill: fill(a, b), texts: texts(a, b) }),
    name: (a, b) => `phase (${a}, ${b}): ${name(a, b)}`,
    target: (a, b) => {
      const middle = (rows) => rows[Math.floor((rows.length - 1) / 2)];
      const [h, v] = [middle(down[a].rows), middle(across[b].rows)];
      return h === undefined || v === undefined
        ? { kind: "zero", what: "No pixel of the image has this phase." }
        : { kind: "image", h, v };
    },
    marks: ({ products, ...at }) => {
      const pixel = at.kind === "term" && products[0].inside ? products[0] : at;
      return "h" in pixel ? [[lab.phaseOf(height, pixel.h), lab.phaseOf(width, pixel.v), "ring"]] : [];
    },
  };
}
