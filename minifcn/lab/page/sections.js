/*
 * What stands above and below the views: the size's formula, overlap and checkerboards, and why output_padding exists.
 */

/** The sizes' formulas, and which relationship of the guide each is. */
function formulaLines({ axes }) {
  const say = (axis) => {
    const { number, title, rule, remark } = lab.relationship(axis);
    const which = number === null ? "Relationship" : `Relationship ${number},`;
    return `${which} ${title}: ${rule}${remark ? `; ${remark}` : ""}.`;
  };
  const equal = lab.formula(axes[0]) === lab.formula(axes[1]);
  const lines = (equal ? axes.slice(0, 1) : axes).flatMap((axis) => [
    make("dt", {}, equal ? "height and width" : axis.name),
    make(
      "dd",
      {},
      make("span", { class: "formula" }, lab.formula(axis)),
      make("span", { class: "relationship" }, say(axis)),
    ),
  ]);
  return make("dl", {}, ...lines);
}

const MOST_SWATCHES = 12;

/** The counts that occur, and in how many pixels; of many counts nine. */
function overlapKey(counts, most) {
  const tally = new Map();
  for (const count of counts.flat()) tally.set(count, (tally.get(count) ?? 0) + 1);
  const all = [...tally].sort(([a], [b]) => a - b);
  const some = all.length > MOST_SWATCHES ? lab.count(9).map((k) => all[Math.round((k * (all.length - 1)) / 8)]) : all;
  return key(...some.map(([count, pixels]) => [heatFill(count, most), `${count}: ${plural(pixels, "pixel")}`]));
}

function overlapSection(scene, room, draw) {
  const counts = lab.overlap(scene.axes);
  const most = largest(counts);
  const { counts: perPhase, sums, verdict } = lab.checkerboard(scene.w, scene.axes);
  const [answer, why] = verdict.replace(/(?<=\s)-(?=\d)/g, "−").split(/(?<=^[^:]*:)/);
  const [mostTaps, mostSum] = [largest(perPhase), largest(sums)];
  const image = imageGrid(
    scene,
    { width: isWide(room) ? room.width - 290 : room.width, height: 400 },
    {
      label: "products in each pixel",
      look: (h, v) => ({ fill: heatFill(counts[h][v], most), texts: [String(counts[h][v])] }),
      name: (h, v) => plural(counts[h][v], "product"),
    },
  );
  const small = { width: 230, height: 200, most: 48 };
  const products = phasesGrid(scene, small, {
    label: "products by phase",
    fill: (a, b) => heatFill(perPhase[a][b], mostTaps),
    texts: (a, b) => [String(perPhase[a][b])],
    name: (a, b) => plural(perPhase[a][b], "product"),
  });
  const weights = phasesGrid(scene, small, {
    label: "sum of weights by phase",
    fill: (a, b) => valueFill("tap", sums[a][b], mostSum),
    texts: (a, b) => numerals(sums[a][b]),
    name: (a, b) => `sum ${written(sums[a][b])}`,
  });
  return [
    prose(`**${capital(answer)}**${why}.`),
    figures(
      figure("How many products are added up in each pixel", draw(image), overlapKey(counts, most)),
      make(
        "div",
        {},
        figure("Products, by phase (inside the image)", draw(products)),
        figure("Sum of the weights, by phase", draw(weights)),
      ),
    ),
    prose(`A constant input comes out as the phases’ sums, over and over: where they differ, there is a checkerboard.
      Counts are equal where the stride divides the kernel (and shares no divisor with the dilation). Equal counts do
      not make equal sums, nor unequal counts unequal ones. Towards the border scores are missing, and the image
      fades.`),
  ];
}

/** What output_padding gives back of what padding crops, and how far it goes beyond that. */
function givenBack({ padding, output_padding }) {
  const [kept, beyond] = [Math.min(output_padding, padding), Math.max(output_padding - padding, 0)];
  const back = kept ? `, and gives back ${kept} of the ${padding} that padding crops at the end` : "";
  return `${back}${beyond ? `, and adds ${beyond} beyond all stamps, where the image is 0` : ""}`;
}

/** Which images the matching convolution turns into these scores, and which of them output_padding chooses. */
function matchingSizes(axis) {
  const { stride, output_padding } = axis;
  const [first, last] = lab.imageSizes(axis);
  const size = lab.outputSize(axis);
  const scores = plural(axis.input, "score");
  if (first > last) return `the matching convolution makes ${scores} of no image at all, this one of ${size} included.`;
  const sizes = `${first}${last === first ? "" : last === first + 1 ? ` or ${last}` : ` to ${last}`} pixels`;
  const made = `the matching convolution makes ${scores} of an image of ${sizes === "1 pixels" ? "1 pixel" : sizes}.`;
  if (output_padding >= stride) {
    return `${made} The ${size} here are more: output_padding ${output_padding} is not below stride ${stride}.`;
  }
  if (first === last) return `${made} Nothing is left to choose.`;
  return `${made} output_padding ${output_padding} says that ${size} is meant${givenBack(axis)}.`;
}

const matchingSection = ({ axes }) => [
  prose(`A convolution of stride *s* rounds down: it cannot tell apart up to *s* sizes of its input. Going back, the
    transposed convolution has to be told which of them to return. That is all that output_padding does. It does not
    pad: it crops less, at the end of each axis. Only beyond the last stamp, where there is nothing to crop, are its
    rows and columns 0.`),
  ...perAxis(axes, matchingSizes),
];
