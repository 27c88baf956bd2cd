/*
 * What is linked with what. A selection is one of
 *
 *     {kind: "image", h, v}          a pixel: all products that are added up in it
 *     {kind: "score", p, q}          a score: all products that it takes part in
 *     {kind: "tap", i, j}            a tap: likewise
 *     {kind: "term", p, q, i, j}     one product, y[p,q]·w[i,j]
 *     {kind: "zero", what}           an inserted zero, or a cropped one: no product worth the name
 *
 * and its products are {p, q, i, j, h, v, inside}; those that land beside the image, and are cropped, are not `inside`.
 */
function productsOf([height, width], selection) {
  const product = (p, q, i, j) => {
    const [h, v] = [lab.rowOf(height, p, i), lab.rowOf(width, q, j)];
    const inside = h >= 0 && h < lab.outputSize(height) && v >= 0 && v < lab.outputSize(width);
    return { p, q, i, j, h, v, inside };
  };
  const all = (first, second, one) => first.flatMap((a) => second.map((b) => one(a, b)));
  const { kind, p, q, i, j, h, v } = selection;
  if (kind === "image")
    return all(lab.feeding(height, h), lab.feeding(width, v), (a, b) => product(a[0], b[0], a[1], b[1]));
  if (kind === "score") return all(lab.count(height.kernel), lab.count(width.kernel), (i, j) => product(p, q, i, j));
  if (kind === "tap") return all(lab.count(height.input), lab.count(width.input), (p, q) => product(p, q, i, j));
  if (kind === "term") return [product(p, q, i, j)];
  return [];
}

/** Whether a selection is still part of a layer that has become another one. */
function stillThere([height, width], { kind, p, q, i, j, h, v }) {
  const score = p < height.input && q < width.input;
  const tap = i < height.kernel && j < width.kernel;
  if (kind === "image") return h < lab.outputSize(height) && v < lab.outputSize(width);
  return kind === "score" ? score : kind === "tap" ? tap : kind === "term" && score && tap;
}

// ---- numbers as text ----------------------------------------------------------------------------------------------

/** Six digits at most, with a real minus. */
const written = (value) => lab.signed(Number(value.toPrecision(6)));
const isRounded = (value) => Number(value.toPrecision(6)) !== value;
const factor = (value) => (value < 0 ? `(${written(value)})` : written(value));

/** For a cell: about three digits. */
function short(value) {
  const size = Math.abs(value);
  if (size < 0.01) return lab.signed(Number(value.toPrecision(2)));
  return lab.signed(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2)));
}

/** For a small cell: two digits (of whole numbers three or four), and four characters at most. */
function brief(value) {
  const size = Math.abs(value);
  if (size >= (value < 0 ? 999.5 : 9999.5) || (size > 0 && size < 0.005))
    return lab.signed(value.toExponential(0).replace("+", ""));
  const text = String(Number(value.toFixed(size >= 9.95 ? 0 : size >= 0.995 ? 1 : 2)));
  return lab.signed(text.replace("0.", "."));
}

/** What a cell can show of a value: the first that fits. */
const numerals = (value) => [
  short(value),
  brief(value),
  value !== 0 && Math.abs(value) < 0.005 ? "≈0" : brief(value),
];

const plural = (n, one, many = `${one}s`) => `${n === 0 ? "no" : n.toLocaleString("en")} ${n === 1 ? one : many}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

const MANY = 12;

/** The parts of a sentence; of many the first ones, and how many they are. */
const listed = (parts, between, noun) =>
  (parts.length > MANY ? [...parts.slice(0, MANY / 2), `… (${plural(parts.length, noun)})`] : parts).join(between);

// ---- a selection in words -----------------------------------------------------------------------------------------

/** Lines, the first of them the head, that say what a selection is made of or where it goes. */
function sentences(scene, selection) {
  const { kind, p, q, i, j, h, v, what } = selection;
  const products = productsOf(scene.axes, selection);
  if (kind === "image") return pixelInWords(scene, h, v, products);
  if (kind === "score") return scoreInWords(scene, p, q, products);
  if (kind === "tap") return tapInWords(scene, i, j, products);
  if (kind === "term") return productInWords(scene, products[0]);
  return [what];
}

function pixelInWords({ axes, x, y, w }, h, v, products) {
  const name = `x[${h}, ${v}]`;
  if (!products.length) {
    const hole = axes.some((axis, k) => !lab.phases(axis)[lab.phaseOf(axis, [h, v][k])].taps.length);
    return [`${name} = 0`, hole ? "No tap reaches pixels of this phase: a hole." : "No stamp reaches this pixel."];
  }
  const symbols = products.map(({ p, q, i, j }) => `y[${p},${q}]·w[${i},${j}]`);
  const numbers = products.map(({ p, q, i, j }) => `${factor(y[p][q])}·${factor(w[i][j])}`);
  const values = [x[h][v], ...products.flatMap(({ p, q, i, j }) => [y[p][q], w[i][j]])];
  const equals = values.some(isRounded) ? "≈" : "=";
  return [
    `${name} ${equals} ${written(x[h][v])}`,
    `= ${listed(symbols, " + ", "product")}`,
    `${equals} ${listed(numbers, " + ", "product")} ${equals} ${written(x[h][v])}`,
  ];
}

function scoreInWords({ y, w }, p, q, products) {
  const landed = products.filter(({ inside }) => inside);
  const cropped = products.length - landed.length;
  const gets = landed.map(({ i, j, h, v }) => `x[${h},${v}] gets ${factor(y[p][q])}·${factor(w[i][j])}`);
  const lost = cropped ? `; ${plural(cropped, "product")} of it ${cropped === 1 ? "is" : "are"} cropped` : "";
  return [
    `y[${p}, ${q}] = ${written(y[p][q])}`,
    `It reaches ${plural(landed.length, "pixel")}${lost}.`,
    ...(landed.length ? [`${listed(gets, "; ", "pixel")}.`] : []),
  ];
}

function tapInWords({ axes, w }, i, j, products) {
  const landed = products.filter(({ inside }) => inside).length;
  const [row, column] = axes.map((axis, k) => {
    const shift = [i, j][k] * axis.dilation - axis.padding;
    const times = axis.stride > 1 ? `·${axis.stride}` : "";
    return `${"pq"[k]}${times}${shift ? ` ${shift < 0 ? "−" : "+"} ${Math.abs(shift)}` : ""}`;
  });
  return [
    `w[${i}, ${j}] = ${written(w[i][j])}`,
    `It carries y[p, q] to x[${row}, ${column}]: ${plural(landed, "product")} in the image.`,
  ];
}

function productInWords({ y, w, x }, { p, q, i, j, h, v, inside }) {
  const value = `${factor(y[p][q])}·${factor(w[i][j])} = ${written(y[p][q] * w[i][j])}`;
  const where = inside
    ? `It is one of the products in x[${h}, ${v}] = ${written(x[h][v])}.`
    : "It lands beside the image, and is cropped.";
  return [`y[${p}, ${q}]·w[${i}, ${j}]`, `= ${value}`, where];
}
