/*
 * The four views. Each is a function from a scene, and the room there is, to elements; `draw(spec)` makes a grid that
 * takes part in the linking, and `follow(function)` asks to be told of every pixel that is selected.
 */

/** A paragraph; *these words* are italic and **these** bold, and a new line is a space. */
function prose(text) {
  const parts = text.split(/(\*\*[^*]+\*\*|\*[^*]+\*)/).map((part) => {
    if (part.startsWith("**")) return make("b", {}, part.slice(2, -2));
    return part.startsWith("*") ? make("i", {}, part.slice(1, -1)) : part;
  });
  return make("p", {}, ...parts);
}

const figures = (...all) => make("div", { class: "figures" }, ...all);

/** A grid with a caption, and a key if there is one, both about as wide as the grid. */
function figure(caption, grid, ...below) {
  const scroller = make("div", { class: "scroller" }, grid);
  const one = make("figure", {}, make("figcaption", {}, caption), scroller, ...below);
  one.style.maxWidth = `max(${grid.style.width}, 15em)`;
  return one;
}

function swatch(fill, extra) {
  const square = make("span", { class: extra ? `swatch ${extra}` : "swatch", "aria-hidden": "true" });
  square.style.backgroundColor = fill;
  return square;
}

/** Colours and what they mean, in a row. */
const key = (...entries) =>
  make("ul", { class: "key" }, ...entries.map(([fill, text, extra]) => make("li", {}, swatch(fill, extra), text)));

/** One sentence for both axes if they agree, and one for each otherwise. */
function perAxis(axes, say) {
  const [height, width] = axes.map(say);
  return height === width
    ? [prose(`Height and width: ${height}`)]
    : [prose(`Height: ${height}`), prose(`Width: ${width}`)];
}

const isWide = (room) => room.width > 560;

// ---- 1 ------------------------------------------------------------------------------------------------------------

function scatterView(scene, room, draw) {
  const dilated = scene.axes.some(({ dilation }) => dilation > 1);
  return [
    prose(`Each score multiplies the whole filter. The product is its **stamp**, and stamps are put down a stride apart;
      where they lie on each other, they are added. Then padding is cropped off all four sides: in a transposed
      convolution padding takes away, it does not add.
      ${dilated ? "Dilation spreads a stamp: its taps lie further apart." : ""}`),
    figures(
      figure(
        "The stamp of each score: y[p, q] times the filter",
        draw(stampsGrid(scene, { width: room.width, height: 460, most: 24 })),
      ),
      figure(
        "All stamps put down and added up",
        draw(canvasGrid(scene, { width: room.width, height: 460, most: 25 })),
        key([colour("image-soft"), "image"], [colour("cropped"), "cropped by padding", "cropped"]),
      ),
    ),
    prose("This is the definition. The other three views are the same sum in another order."),
  ];
}

// ---- 2 ------------------------------------------------------------------------------------------------------------

/** How many zeros there are along an axis, in words. */
function zerosAlong(axis) {
  const { zeros, before, after } = lab.equivalentConvolution(axis);
  const filled = `p′ = ${axis.dilation}·(${axis.kernel} − 1) − ${axis.padding} = ${lab.signed(before)}`;
  const side = (n) => (n < 0 ? `${-n} cropped` : plural(n, "zero"));
  const sides =
    after === before
      ? `${side(before)} on each side`
      : `${side(before)} at the start; with output_padding, ${side(after)} at the end`;
  return `${plural(zeros, "zero")} between scores. ${filled}: ${sides}.`;
}

function zerosKey(grid) {
  const all = lab.count(grid.rows).flatMap((r) => lab.count(grid.columns).map((c) => grid.kindOf(r, c)));
  const present = new Set(all);
  const entries = {
    score: [colour("score-soft"), "score"],
    between: [colour("between"), "zero between"],
    around: [colour("around"), "zero around"],
    extra: [colour("extra"), "zero for output_padding", "extra"],
    cropped: [colour("cropped"), "cropped", "cropped"],
  };
  return key(
    ...Object.keys(entries)
      .filter((kind) => present.has(kind))
      .map((kind) => entries[kind]),
  );
}

function zerosView(scene, room, draw) {
  const [height, width] = scene.axes;
  const grid = zerosGrid(scene, { width: isWide(room) ? room.width - 220 : room.width, height: 460 });
  const all = scene.H * scene.W * height.kernel * width.kernel;
  const useful = lab
    .overlap(scene.axes)
    .flat()
    .reduce((total, count) => total + count, 0);
  const wasted = Math.round((100 * (all - useful)) / all);
  return [
    prose(`Put zeros between the scores, and around them, and slide the filter over the result, turned by 180°, one
      pixel at a time. It is the same sum from the pixel’s side: looking back at the scores that stamped on it, a pixel
      sees the filter turned round. Of its products here ${wasted}% are with a zero that was put in, so this way is for
      understanding.`),
    ...perAxis(scene.axes, zerosAlong),
    figures(
      figure("Scores with zeros; outlined: where the filter lies for the selected pixel", draw(grid), zerosKey(grid)),
      figure(
        "The filter, turned by 180°",
        draw(
          filterGrid(
            scene,
            { width: isWide(room) ? 180 : room.width, height: 180 },
            { label: "filter w, turned by 180°", turn: true },
          ),
        ),
      ),
    ),
  ];
}

// ---- 3 ------------------------------------------------------------------------------------------------------------

const LEAST_ENTRY = 4; // pixels: smaller entries of the matrix cannot be pointed at

/** Two radio buttons, C and Cᵀ. */
function matrixChoice(transposed, transpose) {
  const choice = make("fieldset", { class: "choice" }, make("legend", { class: "unseen" }, "Which matrix"));
  for (const [value, text] of [
    ["", "C"],
    ["yes", "Cᵀ"],
  ]) {
    const input = make("input", { type: "radio", name: "transposed", value });
    input.checked = Boolean(value) === transposed;
    input.addEventListener("change", () => transpose(Boolean(value)));
    choice.append(make("label", {}, input, make("span", {}, text)));
  }
  return choice;
}

function matrixView(scene, room, draw, { transposed, transpose, follow }) {
  const { axes, H, W } = scene;
  const [height, width] = axes;
  const place = { width: room.width, height: transposed ? 800 : 700, least: LEAST_ENTRY, most: 26 };
  const fitting = Math.floor((transposed ? place.height : place.width) / (LEAST_ENTRY + 1 / W)) - 4;
  const rows = Math.max(1, Math.min(H, Math.floor(fitting / W))); // of the image, whose pixels are shown
  const [scores, pixels] = [plural(height.input * width.input, "score"), plural(H * W, "pixel")];
  const matrix = make("div");
  let from = -1;
  const show = (h) => {
    from = Math.max(0, Math.min(H - rows, h - Math.floor(rows / 2)));
    const [what, which] = transposed
      ? ["Cᵀ: a row for each pixel, a column for each score", "rows"]
      : ["C: a row for each score, a column for each pixel", "columns"];
    const part = rows === 1 ? `row ${from}` : `rows ${from} to ${from + rows - 1}`;
    const shown = `${part} of the image’s ${H} ${rows === 1 ? "is" : "are"} shown`;
    const cap = `It has too many ${which}: ${shown}, around the selected pixel.`;
    matrix.replaceChildren(
      figure(
        `${what} (${scores}, ${pixels}). ${rows < H ? cap : ""}`,
        draw(matrixGrid(scene, place, { transposed, from, to: from + rows })),
      ),
    );
  };
  follow((pixel) => {
    if (from < 0 || (pixel && (pixel.h < from || pixel.h >= from + rows))) show(pixel ? pixel.h : 0);
  });
  return [
    prose(`Write the image and the scores as long lists. Then the convolution is one matrix *C*: the row of a score
      holds the taps, at the pixels that the score looks at. The transposed convolution multiplies by *C*ᵀ: the same
      entries, read down a column instead of along a row. Hence its name. It is not the inverse: it gives back the size
      of an image, not its values.`),
    matrixChoice(transposed, transpose),
    matrix,
    figure(
      "The colours of the taps",
      draw(
        filterGrid(
          scene,
          { width: 180, height: 110, most: 26 },
          {
            label: "filter w, the colours of its taps",
            fill: (i, j) => tint(i, height.kernel, j, width.kernel),
            mark: "ring",
          },
        ),
      ),
    ),
  ];
}

// ---- 4 ------------------------------------------------------------------------------------------------------------

const MOST_CARDS = 9; // from more phases on, one is shown: that of the selected pixel
const MOST_TERMS = 4;

/** "x[2r, 2t + 1] = y[r, t + 1]·w[1, 0] + …": what the pixels of a pair of phases are made of. */
function phaseRule([height, width], a, b) {
  if (!a.rows.length || !b.rows.length) return ["no pixel of the image"];
  const shifted = (letter, shift) => `${letter}${shift ? ` ${shift < 0 ? "−" : "+"} ${Math.abs(shift)}` : ""}`;
  const pixel = (axis, letter, phase) => shifted(`${axis.stride > 1 ? axis.stride : ""}${letter}`, phase.rows[0]);
  const score = (axis, letter, phase, i) =>
    shifted(letter, (phase.rows[0] + axis.padding - i * axis.dilation) / axis.stride);
  const terms = a.taps.flatMap((i) =>
    b.taps.map((j) => `y[${score(height, "r", a, i)}, ${score(width, "t", b, j)}]·w[${i}, ${j}]`),
  );
  const shown = terms.length > MOST_TERMS ? [...terms.slice(0, MOST_TERMS), `… (${terms.length} products)`] : terms;
  const left = `x[${pixel(height, "r", a)}, ${pixel(width, "t", b)}] = ${shown.length ? "" : "0"}`;
  return [left, ...shown.flatMap((term, k) => [k ? " + " : "", make("span", {}, term)])];
}

function phaseCard(scene, draw, a, b, fill) {
  const name = `phase (${a.phase}, ${b.phase})`;
  const taps = () =>
    filterGrid(
      scene,
      { width: 110, height: 110, most: 32 },
      { label: `taps of ${name}`, rows: a.taps, columns: b.taps },
    );
  const pixels = () =>
    imageGrid(scene, { width: 150, height: 150, most: 28 }, { label: `pixels of ${name}`, hs: a.rows, vs: b.rows });
  return make(
    "section",
    { class: "card", "aria-label": name },
    make("h4", {}, swatch(fill), capital(name)),
    make("p", { class: "rule" }, ...phaseRule(scene.axes, a, b)),
    make(
      "div",
      { class: "parts" },
      a.taps.length && b.taps.length
        ? figure("its taps", draw(taps()))
        : make("p", { class: "note" }, "No tap: a hole, always 0."),
      ...(a.rows.length && b.rows.length ? [figure("its pixels", draw(pixels()))] : []),
    ),
  );
}

function phasesView(scene, room, draw, { follow }) {
  const [height, width] = scene.axes;
  const [down, across] = [lab.phases(height), lab.phases(width)];
  const number = height.stride * width.stride;
  const fill = (a, b) => tint(a, height.stride, b, width.stride);
  const ofPixel = (h, v) => [lab.phaseOf(height, h), lab.phaseOf(width, v)];
  const cards = make("div", { class: "cards" });
  const show = (pairs) =>
    cards.replaceChildren(...pairs.map(([a, b]) => phaseCard(scene, draw, down[a], across[b], fill(a, b))));
  if (number <= MOST_CARDS) {
    show(lab.count(height.stride).flatMap((a) => lab.count(width.stride).map((b) => [a, b])));
  } else {
    let shown = null;
    follow((pixel) => {
      const pair = pixel ? ofPixel(pixel.h, pixel.v) : (shown ?? [0, 0]);
      if (String(pair) === String(shown)) return;
      shown = pair;
      show([pair]);
    });
  }
  const image = imageGrid(
    scene,
    { width: isWide(room) ? room.width - 300 : room.width, height: 400 },
    {
      label: "image x, coloured by phase",
      look: (h, v) => ({ fill: fill(...ofPixel(h, v)), texts: numerals(scene.x[h][v]) }),
      name: (h, v) => `${written(scene.x[h][v])}, phase (${ofPixel(h, v).join(", ")})`,
    },
  );
  const taps = phasesGrid(
    scene,
    { width: 240, height: 240, most: 52 },
    {
      label: "taps in each phase",
      fill,
      texts: (a, b) => [`${down[a].taps.length}·${across[b].taps.length}`],
      name: (a, b) => plural(down[a].taps.length * across[b].taps.length, "tap"),
    },
  );
  return [
    prose(`A pixel and a tap meet at a score only where the stride divides *h* + padding − *i*·dilation. So pixels with
      the same remainder, a **phase**, are made with the same few taps, and each phase is a small ordinary convolution
      of the scores, of stride 1.
      ${number === 1 ? "At stride 1 there is only one." : `Interleaved, the ${number} results are the image.`}
      No inserted zero is multiplied, and every pixel is written once.`),
    figures(
      figure("The image, coloured by phase", draw(image)),
      figure(
        number <= MOST_CARDS
          ? "Taps in each phase, rows · columns"
          : "Taps in each phase; below, that of the selected pixel",
        draw(taps),
      ),
    ),
    cards,
  ];
}
