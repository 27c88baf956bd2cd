/*
 * A grid of cells that can be pointed at: with the mouse, by touch, and with the keyboard (one stop of the Tab key;
 * arrow keys, Home and End move inside). Few cells are elements. Many are a drawing, over which one element lies: the
 * current cell. Either way a cell has a name that says its position and value.
 */
const MOST_ELEMENTS = 700;
const LEAST_ELEMENT = 15; // pixels: smaller cells are drawn
const LEGIBLE = 24; // pixels: the least cell that a finger hits, and that holds a rounded number
const LEAST_TEXT = 9.5;
const LARGEST_DRAWING = 8192; // device pixels along a side, which every browser can hold
const LARGEST_AREA = 8e6; // device pixels: a page has several drawings
const byTouch = matchMedia("(max-width: 600px), (pointer: coarse)");
const isPrinted = () => document.documentElement.classList.contains("printing");

/** Shorthand for an element: make("p", {class: "note"}, "text", child, …). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Where cells begin: after each a break, if there is one before the next. */
function starts(size, cell, gap, breakBefore) {
  const at = [0];
  for (let k = 1; k <= size; k++) at.push(at[k - 1] + cell + (k < size && breakBefore(k) ? gap : 0));
  return at;
}

const gapFor = (cell) => (cell >= 16 ? 7 : cell >= 7 ? 3 : 1);

/** The largest cell, in whole pixels, with which a grid fits; breaks count too. */
function cellSize({ rows, columns, width, height, most, least, breakRow, breakColumn }) {
  const fits = (cell) =>
    starts(columns, cell, gapFor(cell), breakColumn)[columns] <= width &&
    starts(rows, cell, gapFor(cell), breakRow)[rows] <= height;
  let cell = most;
  while (cell > least && !fits(cell)) cell -= 1;
  return cell;
}

/** Where a finger points, cells are large enough for it, whatever the room: the grid is scrolled. */
function leastCell({ rows, columns, least = 2 }) {
  if (!byTouch.matches || isPrinted()) return least;
  return Math.max(least, Math.min(LEGIBLE, Math.floor(Math.sqrt(LARGEST_AREA / 2 / (rows * columns)))));
}

/**
 * @param spec label; rows, columns; width, height: what it may take, in pixels; most, least: of a cell;
 *   breakRow(r), breakColumn(c): whether there is a gap before a row or column;
 *   look(r, c): {fill, texts: the full one, and shorter ones, ink, class}; name(r, c): what a screen reader says;
 *   target(r, c): what pointing at the cell selects; marks(selection): [[r, c, kind], …];
 *   point(target, how): called with how = "hover", "focus" or "press".
 * @returns {element, mark(selection)}
 */
function makeGrid(spec) {
  spec = { most: 34, height: Infinity, breakRow: () => false, breakColumn: () => false, ...spec };
  spec.least = leastCell(spec);
  spec.most = Math.max(spec.most, spec.least);
  const { rows, columns } = spec;
  const cell = cellSize(spec);
  const [left, top] = [
    starts(columns, cell, gapFor(cell), spec.breakColumn),
    starts(rows, cell, gapFor(cell), spec.breakRow),
  ];
  const inner = cell >= 6 ? cell - 1 : cell; // a line of background between cells that are large enough for one
  const box = { left, top, cell, inner, width: left[columns], height: top[rows], ...lettering(spec, cell) };
  const element = make("div", {
    class: "grid",
    role: "grid",
    "aria-label": spec.label,
    "aria-rowcount": rows,
    "aria-colcount": columns,
  });
  element.style.width = `${box.width}px`;
  element.style.height = `${box.height}px`;
  element.style.fontSize = `${box.font || LEAST_TEXT}px`;
  const few = cell >= LEAST_ELEMENT && rows * columns <= MOST_ELEMENTS;
  const drawn = few ? asElements(element, spec, box) : asDrawing(element, spec, box);
  listen(element, spec, box, drawn);
  const mark = (selection) => {
    const marks = selection ? spec.marks(selection) : [];
    drawn.mark(marks);
    const [r, c] = marks.find(([, , kind]) => kind === "ring") ?? marks.find(([, , kind]) => kind !== "band") ?? [];
    if (box.left[c] !== undefined && box.top[r] !== undefined) bringIntoSight(element, box, r, c);
  };
  return { element, mark };
}

/** Scroll what is around a grid (not the page) to a cell, unless the grid itself is being pointed at. */
function bringIntoSight(element, box, r, c) {
  const around = element.closest(".scroller");
  if (!around || element.matches(":hover")) return;
  const nearest = (from, room, at) =>
    at < from ? Math.max(0, at - box.cell) : at + box.cell > from + room ? at + 2 * box.cell - room : from;
  const [left, top] = [
    nearest(around.scrollLeft, around.clientWidth, box.left[c]),
    nearest(around.scrollTop, around.clientHeight, box.top[r]),
  ];
  if (left !== around.scrollLeft || top !== around.scrollTop) around.scrollTo({ left, top, behavior: "instant" });
}

const widths = new Map();

/** How wide a text is, where the size of letters is 1. */
function ems(text) {
  let total = 0;
  for (const letter of text) {
    if (!widths.has(letter)) {
      const context = make("canvas").getContext("2d");
      context.font = `100px ${getComputedStyle(document.body).fontFamily}`;
      widths.set(letter, context.measureText(letter).width / 100);
    }
    total += widths.get(letter);
  }
  return total;
}

const LEVELS = 3; // how often a text may be given, each time shorter

/** The size in which all texts of a grid fit its cells, the fullest that do so; 0: then no cell shows its text. */
function lettering({ rows, columns, look }, cell) {
  if (cell < LEAST_ELEMENT) return { font: 0 };
  const textAt = ({ texts = [""] }, level) => texts[Math.min(level, texts.length - 1)];
  const longest = Array(LEVELS).fill(0.5);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const one = look(r, c);
      for (let level = 0; level < LEVELS; level++)
        longest[level] = Math.max(longest[level], ems(textAt(one, level)));
    }
  }
  const most = Math.min(14, Math.max(cell * 0.48, Math.min(LEAST_TEXT, cell * 0.6)));
  for (let level = 0; level < LEVELS; level++) {
    const font = Math.min(most, (level ? cell - 2 : cell * 0.82) / longest[level]);
    const least = level === 0 ? LEAST_TEXT : cell < LEGIBLE ? 9 : 8;
    if (font >= least) return { font, textOf: (one) => textAt(one, level) };
  }
  return { font: 0 };
}

/** One element for each cell. */
function asElements(element, spec, box) {
  const cells = [];
  for (let r = 0; r < spec.rows; r++) {
    const row = make("div", { role: "row", "aria-rowindex": r + 1 });
    for (let c = 0; c < spec.columns; c++) {
      const look = spec.look(r, c);
      const { fill, ink, class: extra } = look;
      const one = document.createElement("div");
      one.className = extra ? `cell ${extra}` : "cell";
      one.setAttribute("role", "gridcell");
      one.setAttribute("aria-colindex", c + 1);
      one.setAttribute("aria-label", spec.name(r, c));
      one.tabIndex = r || c ? -1 : 0;
      const place = `left:${box.left[c]}px;top:${box.top[r]}px;width:${box.inner}px;height:${box.inner}px`;
      one.style.cssText = `${place};background-color:${fill}`;
      if (ink) one.style.color = ink;
      if (box.font) one.textContent = box.textOf(look);
      row.append(one);
      cells.push(one);
    }
    element.append(row);
  }
  let [marked, current] = [[], cells[0]];
  const at = (r, c) => cells[r * spec.columns + c];
  return {
    mark(marks) {
      for (const one of marked) one.classList.remove("score", "image", "tap", "band", "ring");
      marked = marks.map(([r, c, kind]) => {
        at(r, c).classList.add(kind);
        return at(r, c);
      });
    },
    focus(r, c) {
      current.tabIndex = -1;
      current = at(r, c);
      current.tabIndex = 0;
      current.focus();
    },
    cellOf: (target) => {
      const k = cells.indexOf(target);
      return k < 0 ? null : [Math.floor(k / spec.columns), k % spec.columns];
    },
  };
}

/** All cells in one canvas, marks in another above it, and one element that stands for the current cell. */
function asDrawing(element, spec, box) {
  const [base, above] = [make("canvas"), make("canvas")];
  const scale = Math.min(
    window.devicePixelRatio || 1,
    LARGEST_DRAWING / box.width,
    LARGEST_DRAWING / box.height,
    Math.sqrt(LARGEST_AREA / (box.width * box.height)),
  );
  const [below, marksOn] = [base, above].map((canvas) => {
    canvas.width = Math.max(1, Math.round(box.width * scale));
    canvas.height = Math.max(1, Math.round(box.height * scale));
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    return context;
  });
  const font = getComputedStyle(document.body).fontFamily;
  const paint = (context, r, c, { fill, ink, ...look }) => {
    context.fillStyle = fill;
    context.fillRect(box.left[c], box.top[r], box.inner, box.inner);
    if (!box.font || !look.texts) return;
    context.fillStyle = ink ?? colour("ink");
    context.fillText(box.textOf(look), box.left[c] + box.inner / 2, box.top[r] + box.inner / 2);
  };
  for (const context of [below, marksOn]) {
    context.font = `${box.font}px ${font}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
  }
  for (let r = 0; r < spec.rows; r++) {
    for (let c = 0; c < spec.columns; c++) {
      paint(below, r, c, spec.look(r, c));
    }
  }
  const one = make("div", { class: "cell current", role: "gridcell", tabindex: 0, "aria-label": spec.name(0, 0) });
  one.style.cssText = `width:${Math.max(box.inner, 4)}px;height:${Math.max(box.inner, 4)}px;left:0;top:0`;
  const row = make("div", { role: "row" }, one);
  element.append(base, above, row);
  let current = [0, 0];
  return {
    mark(marks) {
      marksOn.clearRect(0, 0, box.width, box.height);
      for (const [r, c, kind] of marks) if (kind !== "ring") drawMark(marksOn, spec, box, paint, r, c, kind);
      for (const [r, c, kind] of marks) if (kind === "ring") drawRing(marksOn, box, r, c);
    },
    focus(r, c) {
      current = [r, c];
      one.style.left = `${box.left[c]}px`;
      one.style.top = `${box.top[r]}px`;
      one.setAttribute("aria-label", spec.name(r, c));
      one.setAttribute("aria-colindex", c + 1);
      row.setAttribute("aria-rowindex", r + 1);
      if (document.activeElement !== one) one.focus({ preventScroll: true });
      else one.dispatchEvent(new FocusEvent("focusin", { bubbles: true })); // it has moved, which is as good as a focus
      one.scrollIntoView({ block: "nearest", inline: "nearest" });
    },
    cellOf: (target) => (target === one ? current : null),
  };
}

function drawMark(context, spec, box, paint, r, c, kind) {
  if (kind === "band") {
    context.globalAlpha = 0.18;
    paint(context, r, c, { fill: colour("ink") });
    context.globalAlpha = 1;
  } else {
    paint(context, r, c, { texts: spec.look(r, c).texts, fill: colour(kind), ink: colour(`on-${kind}`) });
  }
}

function drawRing(context, box, r, c) {
  const line = box.cell >= 10 ? 2 : 1;
  const grow = box.cell >= 6 ? 0 : 2; // around a cell that is too small to hold it
  context.strokeStyle = colour("ink");
  context.lineWidth = line;
  const side = box.inner - line + 2 * grow;
  context.strokeRect(box.left[c] + line / 2 - grow, box.top[r] + line / 2 - grow, side, side);
}

function listen(element, spec, box, drawn) {
  /** Which of the sorted starts a coordinate belongs to, or −1. */
  const find = (at, x) => {
    const k = at.findIndex((start) => start > x) - 1;
    return k >= 0 && k < at.length - 1 ? k : -1;
  };
  const under = (event) => {
    const frame = element.getBoundingClientRect();
    const [r, c] = [find(box.top, event.clientY - frame.top), find(box.left, event.clientX - frame.left)];
    return r < 0 || c < 0 ? null : [r, c];
  };
  let last = "";
  element.addEventListener("pointermove", (event) => {
    const at = under(event);
    if (String(at) === last) return; // still the same cell
    last = String(at);
    spec.point(at && spec.target(...at), "hover");
  });
  element.addEventListener("pointerleave", () => {
    last = "";
    spec.point(null, "hover");
  });
  element.addEventListener("click", (event) => {
    const at = under(event);
    if (at) drawn.focus(...at); // a tap of a finger selects in this way
  });
  element.addEventListener("focusin", (event) => {
    const at = drawn.cellOf(event.target);
    if (at) spec.point(spec.target(...at), "focus");
  });
  element.addEventListener("keydown", (event) => {
    const at = drawn.cellOf(event.target);
    if (!at || event.altKey || event.metaKey) return;
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault(); // the page would scroll
      spec.point(spec.target(...at), "press");
      return;
    }
    const to = moved(at, event, spec);
    if (!to) return;
    event.preventDefault(); // the page would scroll
    drawn.focus(...to);
  });
}

/** The cell that a key leads to, or null if it is not a key that moves. */
function moved([r, c], { key, ctrlKey }, { rows, columns }) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (key === "Home") return [ctrlKey ? 0 : r, 0];
  if (key === "End") return [ctrlKey ? rows - 1 : r, columns - 1];
  if (!steps[key]) return null;
  const within = (k, size) => Math.max(0, Math.min(size - 1, k));
  return [within(r + steps[key][0], rows), within(c + steps[key][1], columns)];
}
