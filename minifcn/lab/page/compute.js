"use strict";
/*
 * The arithmetic of one transposed convolution, without any drawing. Everything follows from
 *
 *     h = p·s + i·d − padding         (s stride, d dilation; v, j, q likewise along the width)
 *
 * Letters: (h, v) a pixel of the image, which comes out · (i, j) a tap of the filter · (p, q) a score, which goes in.
 * `axis` is what one axis of the layer is made of: {name, input, kernel, stride, padding, output_padding, dilation}.
 * Functions have the names, and give the sentences, of minifcn.lab.arithmetic and minifcn.lab.ways.
 */
const lab = (() => {
  const SETTINGS = ["input", "kernel", "stride", "padding", "output_padding", "dilation"];
  const AXES = ["height", "width"];

  const axesOf = (config) =>
    AXES.map((name, k) => Object.fromEntries([["name", name], ...SETTINGS.map((key) => [key, config[key][k]])]));
  const mod = (n, s) => ((n % s) + s) % s; // never negative, unlike %
  const count = (n) => Array.from({ length: n }, (_, k) => k);
  const grid = (rows, columns, value) => count(rows).map((r) => count(columns).map((c) => value(r, c)));
  const signed = (n) => String(n).replaceAll("-", "−");

  // ---- sizes ------------------------------------------------------------------------------------------------------

  const reach = (axis) => axis.dilation * (axis.kernel - 1); // of the filter, beyond its first tap
  const smallest = (axis) => (axis.input - 1) * axis.stride - 2 * axis.padding + reach(axis) + 1;
  const outputSize = (axis) => smallest(axis) + axis.output_padding;

  function sum(axis) {
    const { input, kernel, stride, padding, output_padding, dilation } = axis;
    return `(${input} − 1)·${stride} − 2·${padding} + ${dilation}·(${kernel} − 1) + ${output_padding} + 1`;
  }

  const formula = (axis) => `${sum(axis)} = ${signed(outputSize(axis))}`;

  /** null, or {reason, nearest}: what is wrong first, and the nearest configuration in which nothing is. */
  function fault(config) {
    const nearest = { ...config, padding: [...config.padding], output_padding: [...config.output_padding] };
    const reasons = [];
    axesOf(config).forEach((axis, k) => {
      const limit = Math.max(axis.stride, axis.dilation);
      if (axis.output_padding >= limit) {
        nearest.output_padding[k] = limit - 1;
        reasons.push(
          `output_padding ${axis.output_padding} along the ${axis.name} must be smaller than stride or dilation ` +
            `(stride ${axis.stride}, dilation ${axis.dilation}); ` +
            `the nearest valid setting is output_padding ${limit - 1}`,
        );
      }
      const allowed = { ...axis, output_padding: nearest.output_padding[k] };
      if (outputSize(allowed) < 1) {
        const most = Math.floor((outputSize({ ...allowed, padding: 0 }) - 1) / 2); // leaves one pixel, or two
        nearest.padding[k] = most;
        reasons.push(
          `the output's ${axis.name} would be ${formula(allowed)}; the nearest valid setting is padding ${most}`,
        );
      }
    });
    return reasons.length ? { reason: reasons[0], nearest } : null;
  }

  /** [first, last] image size that the matching convolution makes these scores of; there is none where first > last. */
  const imageSizes = (axis) => [Math.max(smallest(axis), 1), smallest(axis) + axis.stride - 1];

  /** Which relationship of Dumoulin & Visin's guide gives the size: the most special one that holds. */
  function relationship(axis) {
    const { stride: s, padding: p, output_padding: a, dilation: d } = axis;
    const span = reach(axis);
    const remarks = [];
    if (d > 1) remarks.push(`with k = ${span + 1}, the size of the dilated kernel (relationship 15)`);
    if (p > span) remarks.push(`the guide has p ≤ k − 1; here p′ = ${signed(span - p)} means cropping`);
    if (a >= s)
      remarks.push(`a = ${a} is no remainder of a division by ${s}: no convolution of this stride leads back`);
    const [number, title, rule] = a >= s
      ? [null, "none of the guide's", "o′ = s(i′ − 1) + a + k − 2p"]
      : a
      ? [14, "zero padding, non-unit strides, transposed", "o′ = s(i′ − 1) + a + k − 2p"]
      : s > 1 && p
        ? [13, "zero padding, non-unit strides, transposed", "o′ = s(i′ − 1) + k − 2p"]
        : s > 1
          ? [12, "no zero padding, non-unit strides, transposed", "o′ = s(i′ − 1) + k"]
          : !p
            ? [8, "no zero padding, unit strides, transposed", "o′ = i′ + (k − 1)"]
            : 2 * p === span
              ? [10, "half padding, transposed", "o′ = i′"]
              : p === span
                ? [11, "full padding, transposed", "o′ = i′ − (k − 1)"]
                : [9, "zero padding, unit strides, transposed", "o′ = i′ + (k − 1) − 2p"];
    return { number, title, rule, remark: remarks.join("; ") };
  }

  // ---- who feeds whom ---------------------------------------------------------------------------------------------

  /** [[p, i], …]: the score rows that feed image row h, and through which taps. */
  function feeding(axis, h) {
    const found = [];
    for (let i = 0; i < axis.kernel; i++) {
      const from = h + axis.padding - i * axis.dilation; // p·s
      const p = from / axis.stride;
      if (mod(from, axis.stride) === 0 && p >= 0 && p < axis.input) found.push([p, i]);
    }
    return found;
  }

  const rowOf = (axis, p, i) => p * axis.stride + i * axis.dilation - axis.padding;

  /** [[h, i], …]: the image rows that score row p reaches, and through which taps. */
  const reached = (axis, p) =>
    count(axis.kernel)
      .map((i) => [rowOf(axis, p, i), i])
      .filter(([h]) => h >= 0 && h < outputSize(axis));

  const phaseOf = (axis, h) => mod(h + axis.padding, axis.stride);

  /** The s phases: image rows h of equal (h + padding) mod s, and the taps that reach them. */
  function phases(axis) {
    return count(axis.stride).map((phase) => ({
      phase,
      taps: count(axis.kernel).filter((i) => mod(i * axis.dilation, axis.stride) === phase),
      rows: count(outputSize(axis)).filter((h) => phaseOf(axis, h) === phase),
    }));
  }

  function overlap([height, width]) {
    const [rows, columns] = [height, width].map((axis) => count(outputSize(axis)).map((h) => feeding(axis, h).length));
    return grid(rows.length, columns.length, (h, v) => rows[h] * columns[v]);
  }

  // ---- four ways to compute it: each from its own idea ------------------------------------------------------------

  /** Rows of a canvas that holds all stamps, and what output_padding adds beyond them; its row `padding` is h = 0. */
  const canvasSize = (axis) =>
    Math.max((axis.input - 1) * axis.stride + reach(axis) + 1, axis.padding + outputSize(axis));

  /** Every score stamps its multiple of the filter onto a canvas, and stamps add up. */
  function stampCanvas(y, w, [height, width]) {
    const canvas = grid(canvasSize(height), canvasSize(width), () => 0);
    for (let p = 0; p < height.input; p++) {
      for (let q = 0; q < width.input; q++) {
        for (let i = 0; i < height.kernel; i++) {
          const row = canvas[p * height.stride + i * height.dilation];
          for (let j = 0; j < width.kernel; j++) row[q * width.stride + j * width.dilation] += y[p][q] * w[i][j];
        }
      }
    }
    return canvas;
  }

  /** The stamped canvas, with the padding cropped off. */
  function scatter(y, w, [height, width]) {
    const rows = stampCanvas(y, w, [height, width]).slice(height.padding, height.padding + outputSize(height));
    return rows.map((row) => row.slice(width.padding, width.padding + outputSize(width)));
  }

  /** Between scores, before them and after them; a negative number of zeros crops. */
  const equivalentConvolution = (axis) => ({
    zeros: axis.stride - 1,
    before: reach(axis) - axis.padding,
    after: reach(axis) - axis.padding + axis.output_padding,
  });

  /** The map in which score (p, q) lies at (p·s + p′, q·s + p′), where that is inside, and zeros everywhere else. */
  function insertZeros(y, [height, width]) {
    const z = grid(outputSize(height) + reach(height), outputSize(width) + reach(width), () => 0);
    for (let p = 0; p < height.input; p++) {
      const row = z[p * height.stride + equivalentConvolution(height).before];
      for (let q = 0; row && q < width.input; q++) {
        const at = q * width.stride + equivalentConvolution(width).before;
        if (at >= 0 && at < row.length) row[at] = y[p][q];
      }
    }
    return z;
  }

  const turned = (w) => w.map((row) => row.slice().reverse()).reverse(); // by 180°

  /** An ordinary convolution of stride 1, with the turned filter, of the zero-inserted scores. */
  function byZeroInsertion(y, w, [height, width]) {
    const z = insertZeros(y, [height, width]);
    const filter = turned(w);
    return grid(outputSize(height), outputSize(width), (h, v) => {
      let total = 0;
      for (let i = 0; i < height.kernel; i++) {
        const row = z[h + i * height.dilation];
        for (let j = 0; j < width.kernel; j++) total += row[v + j * width.dilation] * filter[i][j];
      }
      return total;
    });
  }

  /** C (P·Q, H·W), the matrix of the convolution, row by row in one array: row (p, q) holds what score (p, q) reads. */
  function convMatrix(w, [height, width]) {
    const rows = height.input * width.input;
    const columns = outputSize(height) * outputSize(width);
    const entries = new Float64Array(rows * columns);
    for (let row = 0; row < rows; row++) {
      const [p, q] = [Math.floor(row / width.input), row % width.input];
      for (const [h, i] of reached(height, p)) {
        for (const [v, j] of reached(width, q)) entries[row * columns + h * outputSize(width) + v] = w[i][j];
      }
    }
    return { rows, columns, entries };
  }

  /** Cᵀ·y: pixel by pixel, a column of C times all scores. */
  function byMatrix(y, w, [height, width]) {
    const { rows, columns, entries } = convMatrix(w, [height, width]);
    const flat = new Float64Array(columns);
    const scores = y.flat();
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) flat[column] += entries[row * columns + column] * scores[row];
    }
    return grid(outputSize(height), outputSize(width), (h, v) => flat[h * outputSize(width) + v]);
  }

  /** The image rows of one phase, as a convolution of stride 1: row r of them reads score row r + start[tap]. */
  function phaseImage(y, w, [height, width], a, b) {
    const starts = (axis, phase) =>
      phase.taps.map((i) => (phase.rows[0] + axis.padding - i * axis.dilation) / axis.stride);
    const [down, across] = [starts(height, a), starts(width, b)];
    return grid(a.rows.length, b.rows.length, (r, t) => {
      let total = 0;
      a.taps.forEach((i, m) => {
        const scores = y[r + down[m]];
        if (scores) b.taps.forEach((j, n) => (total += (scores[t + across[n]] ?? 0) * w[i][j]));
      });
      return total;
    });
  }

  /** One small convolution for each pair of phases; the results are interleaved, every pixel is written once. */
  function byPhases(y, w, [height, width]) {
    const x = grid(outputSize(height), outputSize(width), () => NaN); // a pixel that no phase writes would show
    for (const a of phases(height)) {
      for (const b of phases(width)) {
        phaseImage(y, w, [height, width], a, b).forEach((row, r) =>
          row.forEach((value, t) => (x[a.rows[r]][b.rows[t]] = value)),
        );
      }
    }
    return x;
  }

  // ---- the phases, compared ---------------------------------------------------------------------------------------

  function checkerboard(w, [height, width]) {
    const [down, across] = [phases(height), phases(width)];
    const counts = down.map((a) => across.map((b) => a.taps.length * b.taps.length));
    const sums = down.map((a) =>
      across.map((b) => a.taps.reduce((total, i) => total + b.taps.reduce((part, j) => part + w[i][j], 0), 0)),
    );
    const [least, most] = [Math.min(...counts.flat()), Math.max(...counts.flat())];
    const [low, high] = [Math.min(...sums.flat()), Math.max(...sums.flat())];
    const size = w.flat().reduce((total, tap) => total + Math.abs(tap), 0);
    const even = high - low <= 8 * Number.EPSILON * size; // to rounding
    const perPixel =
      least < most
        ? `a pixel inside gets ${least} to ${most} products, by its phase`
        : `every pixel inside gets ${most === 1 ? "1 product" : `${most} products`}`;
    const digits = general(low, 4) !== general(high, 4) ? 4 : 12;
    let verdict = even
      ? `no checkerboard: ${perPixel}, ${least < most ? "but" : "and"} the weights of every phase have the same sum`
      : `checkerboard: ${perPixel}, ${least < most ? "and" : "but"} the phases' weights add up to between ` +
        `${signed(general(low, digits))} and ${signed(general(high, digits))}`;
    if (least === 0) verdict += "; phases without a tap are holes, 0 whatever the scores are";
    return { counts, sums, even, verdict };
  }

  /** As Python's f"{value + 0.0:.{digits}g}": ties go to the even digit, and very large or small have an exponent. */
  function general(value, digits) {
    if (value === 0) return "0";
    const [written, exponent] = Math.abs(value).toExponential(50).split("e");
    const all = written.replace(".", "");
    let [kept, rest] = [Number(all.slice(0, digits)), all.slice(digits)];
    const half = "5".padEnd(rest.length, "0");
    if (rest > half || (rest === half && kept % 2 === 1)) kept += 1;
    const power = Number(exponent) + (kept === 10 ** digits ? 1 : 0);
    const mantissa = String(kept).slice(0, digits);
    const sign = value < 0 ? "-" : "";
    if (power >= -4 && power < digits) return sign + String(Number(`${mantissa}e${power - digits + 1}`));
    const short = String(Number(`${mantissa}e${1 - digits}`));
    return `${sign}${short}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }

  // ---- lines to copy ----------------------------------------------------------------------------------------------

  function pytorchLine(config, [o, c] = [1, 1]) {
    const words = ["kernel", ...SETTINGS.slice(2)].map((key) => {
      const [a, b] = config[key];
      return `${key === "kernel" ? "kernel_size" : key}=${a === b ? a : `(${a}, ${b})`}`;
    });
    return `torch.nn.ConvTranspose2d(${o}, ${c}, ${words.join(", ")}, bias=False)`;
  }

  /** The command that prints the same; what is left out is the command's default. */
  function commandLine(config, weights) {
    const [p, q] = config.input;
    const defaults = { kernel: null, stride: 1, padding: 0, output_padding: 0, dilation: 1 };
    const options = Object.keys(defaults)
      .filter((key) => config[key].some((value) => value !== defaults[key]))
      .map((key) => {
        const [a, b] = config[key];
        return `--${key.replace("_", "-")} ${a === b ? a : `${a}x${b}`}`;
      });
    const filter = { bilinear: ["--bilinear"], given: ["--weights FILE"] }[weights] ?? [];
    return [`python -m minifcn tconv --input ${p}x${q}`, ...options, ...filter].join(" ");
  }

  // ---- values to begin with ---------------------------------------------------------------------------------------

  const tent = (size) => count(size).map((i) => 1 - Math.abs(i - (size - 1) / 2) / Math.floor((size + 1) / 2));
  /** 1 … 9, then 2 … 9, 1, and so on in reading order: rows differ, whatever their length. */
  const wholeNumbers = (rows, columns) =>
    grid(rows, columns, (r, c) => {
      const k = r * columns + c;
      return 1 + ((k + Math.floor(k / 9)) % 9);
    });
  const impulseAt = (size) => Math.floor((size - 1) / 2);

  const WEIGHTS = {
    bilinear: (rows, columns) => grid(rows, columns, (i, j) => tent(rows)[i] * tent(columns)[j]),
    ones: (rows, columns) => grid(rows, columns, () => 1),
    numbers: wholeNumbers,
  };
  const SCORES = {
    numbers: wholeNumbers,
    ones: (rows, columns) => grid(rows, columns, () => 1),
    ramp: (rows, columns) => grid(rows, columns, (p, q) => p + q),
    impulse: (rows, columns) =>
      grid(rows, columns, (p, q) => Number(p === impulseAt(rows) && q === impulseAt(columns))),
  };

  /** Everything about one configuration, by the functions that the page calls: for tests, and whoever wants numbers. */
  function compute(config) {
    const error = fault(config);
    if (error) return { error };
    const axes = axesOf(config);
    const [y, w] = [config.y ?? SCORES.numbers(...config.input), config.w ?? WEIGHTS.numbers(...config.kernel)];
    const matrix = convMatrix(w, axes);
    const equivalent = axes.map(equivalentConvolution);
    const { counts, sums, even, verdict } = checkerboard(w, axes);
    return {
      error: null,
      output_size: axes.map(outputSize),
      formula: axes.map(formula),
      relationship: axes.map(relationship),
      image_sizes: axes.map(imageSizes),
      zeros: equivalent.map((part) => part.zeros),
      before: equivalent.map((part) => part.before),
      after: equivalent.map((part) => part.after),
      inserted: insertZeros(y, axes),
      output: {
        scatter: scatter(y, w, axes),
        zero_insertion: byZeroInsertion(y, w, axes),
        matrix: byMatrix(y, w, axes),
        phases: byPhases(y, w, axes),
      },
      matrix: grid(matrix.rows, matrix.columns, (row, column) => matrix.entries[row * matrix.columns + column]),
      overlap: overlap(axes),
      phase_counts: counts,
      phase_sums: sums,
      even,
      verdict,
      pytorch: pytorchLine(config, config.channels),
    };
  }

  return {
    SETTINGS,
    AXES,
    WEIGHTS,
    SCORES,
    axesOf,
    count,
    grid,
    mod,
    signed,
    reach,
    outputSize,
    formula,
    fault,
    imageSizes,
    relationship,
    feeding,
    rowOf,
    reached,
    phaseOf,
    phases,
    overlap,
    canvasSize,
    stampCanvas,
    scatter,
    equivalentConvolution,
    insertZeros,
    turned,
    byZeroInsertion,
    convMatrix,
    byMatrix,
    phaseImage,
    byPhases,
    checkerboard,
    general,
    pytorchLine,
    commandLine,
    compute,
  };
})();
window.lab = lab;
