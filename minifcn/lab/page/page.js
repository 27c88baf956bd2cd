/*
 * The page: what is chosen (controls, and the address after #), what is selected (hover, focus), and when to draw.
 */
const $ = (id) => document.getElementById(id);
const given = JSON.parse($("given").textContent);
const VIEWS = { scatter: scatterView, zeros: zerosView, matrix: matrixView, phases: phasesView };
const NAMES = {
  weights: { bilinear: "bilinear", ones: "ones", numbers: "whole numbers", given: "the given ones" },
  scores: { numbers: "whole numbers", ones: "ones", ramp: "ramp", impulse: "one impulse", given: "the given ones" },
};
const GIVEN = { weights: given.weights.values, scores: given.scores.values }; // null: none beside the page's own
const SIZE_OF = { weights: "kernel", scores: "input" };

// ---- what is chosen -----------------------------------------------------------------------------------------------

function initialState() {
  const { config } = given;
  return {
    config,
    separate: lab.SETTINGS.some((key) => config[key][0] !== config[key][1]),
    weights: given.weights.choice,
    scores: given.scores.choice,
    view: "scatter",
    transposed: false,
    instead: [], // of weights and scores: those that stand in for given ones, which did not fit
  };
}

let state = initialState();
let notices = []; // sentences about what was just set, and is not shown as it was asked for

const sizeOf = (values) => `${values.length} × ${values[0].length}`;
const fits = (key, { config }) => String([GIVEN[key].length, GIVEN[key][0].length]) === String(config[SIZE_OF[key]]);

/** The state with whole numbers instead of given ones that do not fit; who wants those back selects them. */
function fitted(next) {
  for (const key of ["weights", "scores"]) {
    if (next[key] !== "given" || fits(key, next)) continue;
    next = { ...next, [key]: "numbers", instead: [...next.instead, key] };
  }
  return next;
}

/** The state as text that can be shared: "input=5x5&kernel=3&…". */
function toHash({ config, separate, weights, scores, view }) {
  const words = lab.SETTINGS.map((key) => `${key}=${separate ? config[key].join("x") : config[key][0]}`);
  return `#${[...words, `weights=${weights}`, `scores=${scores}`, `view=${view}`].join("&")}`;
}

/** One or two numbers as they are read: "3" and "3 × 4". */
const asRead = (pair) => (pair[0] === pair[1] ? pair[0] : pair.join(" × "));

/** [the state that a text stands for, sentences about what of it cannot be]; what it lacks is as the page began. */
function fromHash(hash) {
  const next = initialState();
  const missed = [];
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const quoted = (text) => (text.length > 20 ? `${text.slice(0, 20)}…` : text);
  if (![...words.keys()].some((key) => lab.SETTINGS.includes(key))) {
    return [next, hash.length > 1 ? [`“${quoted(hash.slice(1))}” names no layer: this is the first one.`] : []];
  }
  next.separate = false;
  next.config = { ...next.config };
  for (const key of lab.SETTINGS.filter((key) => words.has(key))) {
    const match = /^(-?\d{1,9})(?:x(-?\d{1,9}))?$/.exec(words.get(key));
    if (!match) {
      missed.push(`${key} “${quoted(words.get(key))}” is no size: ${asRead(next.config[key])} is shown.`);
      continue;
    }
    const [least, most] = given.ranges[key];
    const meant = [match[1], match[2] ?? match[1]].map(Number);
    next.config[key] = meant.map((value) => Math.max(least, Math.min(most, value)));
    next.separate ||= match[2] !== undefined;
    if (String(meant) !== String(next.config[key])) {
      missed.push(`${key} ${lab.signed(asRead(meant))} is out of range: ${asRead(next.config[key])} is shown.`);
    }
  }
  next.separate ||= lab.SETTINGS.some((key) => next.config[key][0] !== next.config[key][1]);
  for (const [key, known] of Object.entries({ ...NAMES, view: VIEWS })) {
    const value = words.get(key);
    if (value === null) continue;
    if (Object.hasOwn(known, value) && (value !== "given" || GIVEN[key])) next[key] = value;
    else missed.push(`The page has no ${key} “${quoted(value)}”.`);
  }
  return [fitted(next), missed];
}

/** Show the layer of the address, and correct the address where it is none. */
function load() {
  clearTimeout(waiting);
  [state, notices] = fromHash(location.hash);
  if (notices.length || state.instead.length) {
    try {
      history.replaceState(null, "", toHash(state));
    } catch {
      // as in remember
    }
  }
  drawAll();
}

let waiting = 0;

/** Write the state into the address once it has come to rest: one step of the Back button for one change. */
function remember() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (toHash(state) === location.hash) return;
    try {
      history.pushState(null, "", toHash(state));
    } catch {
      // a browser may forbid it, for files or when there were many: the page works without
    }
  }, 300);
}

// ---- controls -----------------------------------------------------------------------------------------------------

function buildControls() {
  for (const key of lab.SETTINGS) {
    const dial = make("div", { class: "dial" }, make("span", { class: "heading", "aria-hidden": "true" }, key));
    lab.AXES.forEach((name, k) => {
      const id = `${key}-${name}`;
      const [least, most] = given.ranges[key];
      const slider = make("input", { type: "range", id, min: least, max: most, step: 1 });
      slider.addEventListener("input", () => set(key, k, Number(slider.value)));
      const label = make(
        "label",
        { for: id },
        make("span", { class: "setting" }, key),
        make("span", { class: "axis" }, ` ${name}`),
      );
      dial.append(make("div", { class: "slider" }, label, make("output", { for: id }), slider));
    });
    $("dials").append(dial);
  }
  for (const key of ["weights", "scores"]) {
    for (const [value, text] of Object.entries(NAMES[key])) {
      if (value !== "given") $(key).append(make("option", { value }, text));
      else if (GIVEN[key]) $(key).append(make("option", { value }, `${text} (${sizeOf(GIVEN[key])})`));
    }
    $(key).addEventListener("change", () =>
      change({ [key]: $(key).value, instead: state.instead.filter((other) => other !== key) }),
    );
  }
  $("separate").addEventListener("change", () => {
    const separate = $("separate").checked;
    const both = ([height, width]) => (separate ? [height, width] : [height, height]);
    change({ separate, config: Object.fromEntries(lab.SETTINGS.map((key) => [key, both(state.config[key])])) });
  });
  $("layer").addEventListener("reset", (event) => {
    event.preventDefault();
    change({ ...initialState(), view: state.view });
  });
  $("layer").addEventListener("submit", (event) => event.preventDefault());
  $("nearest").addEventListener("click", () => {
    const error = lab.fault(state.config);
    if (!error) return;
    change({ config: error.nearest });
    $("board").focus(); // the button is gone
  });
}

function set(key, k, value) {
  const pair = [...state.config[key]];
  pair[k] = value;
  change({ config: { ...state.config, [key]: state.separate ? pair : [value, value] } });
}

function showControls() {
  const { config, separate } = state;
  document.body.classList.toggle("separate", separate);
  for (const key of lab.SETTINGS) {
    lab.AXES.forEach((name, k) => {
      const slider = $(`${key}-${name}`);
      slider.value = config[key][k];
      slider.parentElement.hidden = !separate && k === 1;
      slider.previousSibling.textContent =
        !separate && key === "input" ? `${config[key][0]} × ${config[key][0]}` : config[key][k];
    });
  }
  $("separate").checked = separate;
  for (const key of ["weights", "scores"]) {
    $(key).value = state[key];
    if (GIVEN[key]) $(key).querySelector("[value=given]").disabled = !fits(key, state);
  }
  for (const tab of $("tabs").children) {
    const chosen = tab.dataset.view === state.view;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) $("view").setAttribute("aria-labelledby", tab.id);
  }
}

function buildTabs() {
  const tabs = [...$("tabs").children];
  const choose = (tab) => {
    change({ view: tab.dataset.view });
    tab.focus();
  };
  for (const [k, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const to = { ArrowRight: k + 1, ArrowLeft: k - 1, Home: 0, End: tabs.length - 1 }[key];
      if (to !== undefined) choose(tabs[lab.mod(to, tabs.length)]);
    });
  }
}

// ---- what is selected ---------------------------------------------------------------------------------------------

let scene = null;
let grids = []; // those that are drawn: {place, mark}
let followers = []; // functions of the selected pixel
const selected = { hovered: null, pinned: null, untouched: true };

function point(target, how) {
  if (how === "hover") selected.hovered = target;
  else {
    const again = how === "press" && JSON.stringify(target) === JSON.stringify(selected.pinned); // which lets go
    [selected.pinned, selected.untouched] = [again ? null : target, false];
  }
  showSelection();
}

function letGo() {
  Object.assign(selected, { hovered: null, pinned: null, untouched: false });
  showSelection();
}

function showSelection() {
  const selection = selected.hovered ?? selected.pinned;
  const products = selection && scene ? productsOf(scene.axes, selection) : [];
  const linked = selection && scene ? { ...selection, products } : null;
  const pixel = linked && "h" in linked ? linked : linked?.kind === "term" && products[0].inside ? products[0] : null;
  for (const follower of followers) follower(pixel);
  grids = grids.filter(({ element }) => element.isConnected);
  for (const { mark } of grids) mark(linked);
  const lines = linked
    ? sentences(scene, linked).map((text, k) => make("p", { class: k ? "" : "head" }, text))
    : [make("p", {}, ...byPointer("Point at", "Tap"), " a cell, of any grid on this page.")];
  $("sum").replaceChildren(...lines);
  // room once taken is kept: what is pointed at must not move away because a longer text is shown
  $("sum").style.setProperty("--taken", `${$("sum").offsetHeight}px`);
}

/** Words for a mouse and for a finger, of which one is shown. */
const byPointer = (mouse, finger) => [
  make("span", { class: "mouse" }, mouse),
  make("span", { class: "finger" }, finger),
];

// ---- drawing ------------------------------------------------------------------------------------------------------

/** The values that a choice stands for. */
const valuesOf = (key, { [key]: choice, config }) =>
  choice === "given" ? GIVEN[key] : lab[key.toUpperCase()][choice](...config[SIZE_OF[key]]);

/** The layer's (O, C), as long as it is the given one. */
const channels = ({ weights }) => (GIVEN.weights && weights !== "given" ? [1, 1] : given.channels);

/** What is not shown, although it was given or asked for. */
function unshown() {
  const replaced = state.instead.map((key) =>
    fits(key, state)
      ? `The given ${key} fit again: choose them in the list.`
      : `The given ${key} are ${sizeOf(GIVEN[key])}; whole numbers are shown instead.`,
  );
  const [o, c] = channels(state);
  const first = o * c > 1 ? [`Of ${plural(o, "channel")} in and ${c} out, the first of each is shown.`] : [];
  return [...notices, ...replaced, ...first].join(" ");
}

function makeScene(chosen) {
  const { config, weights } = chosen;
  const axes = lab.axesOf(config);
  const [H, W] = axes.map(lab.outputSize);
  const [y, w] = [valuesOf("scores", chosen), valuesOf("weights", chosen)];
  return { config, weights, channels: channels(chosen), axes, H, W, y, w, x: lab.scatter(y, w, axes) };
}

function draw(spec) {
  const one = makeGrid({ ...spec, point });
  grids.push(one);
  return one.element;
}

/** A pixel to begin with: near the middle, where as many products as possible are added up. */
function firstSelection() {
  const [h, v] = scene.axes.map((axis) => {
    const size = lab.outputSize(axis);
    const products = lab.count(size).map((h) => lab.feeding(axis, h).length);
    const off = (h) => Math.abs(h - (size - 1) / 2);
    return lab
      .count(size)
      .reduce((best, h) =>
        products[h] > products[best] || (products[h] === products[best] && off(h) < off(best)) ? h : best,
      );
  });
  return { kind: "image", h, v };
}

const MOST_SCROLLED = 1600; // cells
const SCROLL_BAR = 12; // pixels

const roomOf = (element) => Math.max(240, element.clientWidth);

function drawBoard() {
  const [, width] = scene.axes;
  const room = roomOf($("board-image").parentElement);
  const filterWidth = Math.min(Math.round(room * 0.33), 34 * width.kernel);
  const tall = Math.max(220, Math.min(430, innerHeight - 416)); // on a usual screen all of the board is in sight
  $("board-scores").replaceChildren(draw(scoresGrid(scene, { width: room - filterWidth - 32, height: 190 })));
  $("board-filter").replaceChildren(draw(filterGrid(scene, { width: filterWidth, height: 190 })));
  // an image that is not very large is scrolled rather than shown without its numbers
  const least = scene.H * scene.W <= MOST_SCROLLED && !isPrinted() ? LEGIBLE : 2;
  const bar = scene.H * least > tall ? SCROLL_BAR : 0;
  $("board-image").style.maxHeight = isPrinted() ? "" : `${tall + 2 * SCROLL_BAR}px`;
  $("board-image").replaceChildren(draw(imageGrid(scene, { width: room - bar, height: tall, least })));
}

function drawView() {
  const tools = {
    transposed: state.transposed,
    transpose: (transposed) => change({ transposed }),
    follow: (follower) => followers.push(follower),
  };
  followers = [];
  const held = document.activeElement?.name === "transposed"; // the control that is drawn anew
  $("view").replaceChildren(...VIEWS[state.view](scene, { width: roomOf($("view")) }, draw, tools));
  if (held) $("view").querySelector("input:checked").focus();
}

/** Why there is no such layer, along both axes where they are linked. */
const wordsOf = ({ reason }) =>
  state.separate
    ? reason
    : reason
        .replace("along the height", "along height and width")
        .replace("output's height", "output's height and width");

/** Everything anew. While the setting is no layer, the last one that was stays in sight, but out of use. */
function drawAll() {
  showControls();
  $("notice").textContent = unshown();
  const error = lab.fault(state.config);
  document.body.classList.toggle("invalid", Boolean(error));
  document.querySelector("main").inert = Boolean(error);
  $("problem").hidden = !error;
  $("reason").textContent = error ? `There is no such layer: ${wordsOf(error)}.` : "";
  if (!error) scene = makeScene(state);
  else scene ??= makeScene({ ...state, config: error.nearest });
  if (selected.pinned && !stillThere(scene.axes, selected.pinned))
    Object.assign(selected, { pinned: null, untouched: true });
  if (selected.untouched) selected.pinned = firstSelection();
  const times = ([a, b]) => make("b", {}, `${a} × ${b}`);
  $("sizes").replaceChildren(times(scene.config.input), " scores become an image of ", times([scene.H, scene.W]));
  $("formulas").replaceChildren(formulaLines(scene));
  grids = [];
  drawBoard();
  drawView();
  $("overlap").replaceChildren(...overlapSection(scene, { width: roomOf($("overlap")) }, draw));
  $("matching").replaceChildren(...matchingSection(scene));
  $("pytorch").replaceChildren(...whole(lab.pytorchLine(scene.config, scene.channels)));
  $("command").replaceChildren(...whole(lab.commandLine(scene.config, scene.weights)));
  checkAgreement();
  selected.hovered = null;
  $("sum").style.removeProperty("--taken");
  showSelection();
}

/** 4.4·10⁻¹⁶ */
function power(value) {
  const [digits, exponent] = value.toExponential(1).split("e");
  const raised = [...exponent.replace("+", "")].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
  return `${digits}·10${raised}`;
}

/** The words of a line, none of which is broken: a browser would break after a hyphen. */
const whole = (line) => line.split(" ").flatMap((word, k) => [k ? " " : "", make("span", {}, word)]);

let checking = 0;

/** Compute the image in all four ways, once the sliders are at rest: the matrix of a large layer takes a while. */
function checkAgreement() {
  const { axes, y, w, x } = scene;
  clearTimeout(checking);
  $("agreement").textContent = "";
  checking = setTimeout(() => {
    const ways = [lab.byZeroInsertion, lab.byMatrix, lab.byPhases].map((way) => way(y, w, axes));
    const off = Math.max(
      ...ways.map((other) =>
        Math.max(...other.map((row, h) => Math.max(...row.map((value, v) => Math.abs(value - x[h][v]))))),
      ),
    );
    $("agreement").textContent = `Just computed in all four ways: the same image, ${
      off === 0 ? "to the last digit" : `to rounding (the largest difference is ${power(off)})`
    }.`;
  }, 150);
}

function change(part) {
  state = fitted({ ...state, ...part });
  notices = [];
  drawAll();
  remember();
}

// ---- colours, copying, and the beginning --------------------------------------------------------------------------

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const paper = matchMedia("print");
const THEME = "minifcn.lab.theme";

/** What `action` returns, or undefined where the browser keeps nothing, as for some files and in private windows. */
function ifAllowed(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}

function recallTheme() {
  const kept = ifAllowed(() => localStorage.getItem(THEME));
  for (const input of document.querySelectorAll("input[name=theme]")) if (input.value === kept) input.checked = true;
}

const chosenTheme = () => document.querySelector("input[name=theme]:checked").value;

function applyTheme() {
  const [chosen, root] = [chosenTheme(), document.documentElement];
  root.dataset.theme = isPrinted() ? "light" : chosen === "auto" ? (systemIsDark.matches ? "dark" : "light") : chosen;
  forgetColours();
}

/** Paper is white, and narrower than most screens. */
function layOut(printed) {
  if (printed === isPrinted()) return;
  document.documentElement.classList.toggle("printing", printed);
  applyTheme();
  drawAll();
}

/** Copy the text of an element; where the browser does not allow it, select it, so that the keys for copying do. */
async function copy(id) {
  getSelection().selectAllChildren($(id));
  try {
    await navigator.clipboard.writeText($(id).textContent);
    return true;
  } catch {
    return document.execCommand("copy");
  }
}

let restoring = 0;

/** Copy what a button is for, and say so: on the button for a moment, and to screen readers. */
async function copyBy(button) {
  const copied = await copy(button.dataset.copy);
  clearTimeout(restoring);
  for (const other of document.querySelectorAll("[data-copy]")) other.textContent = "Copy";
  button.textContent = copied ? "Copied." : "Press Ctrl + C";
  $("copied").textContent = copied ? "Copied." : "Selected: press Ctrl + C, or ⌘ + C, to copy.";
  restoring = setTimeout(() => {
    button.textContent = "Copy";
    $("copied").textContent = "";
  }, 3000);
}

recallTheme();
applyTheme();
buildControls();
buildTabs();
load();

systemIsDark.addEventListener("change", () => {
  applyTheme();
  drawAll();
});
$("theme").addEventListener("change", () => {
  ifAllowed(() => localStorage.setItem(THEME, chosenTheme()));
  applyTheme();
  drawAll();
});
paper.addEventListener("change", () => layOut(paper.matches));
addEventListener("beforeprint", () => layOut(true));
addEventListener("afterprint", () => layOut(false));
byTouch.addEventListener("change", drawAll);
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copyBy(button));
}
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # is the layer's
  $("board").focus();
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") letGo();
});
addEventListener("popstate", load);
/** The board stays in sight while the page is scrolled; if it is taller than the window, its lower end does. */
function placeBoard() {
  $("board").style.setProperty("--from", `${Math.min(12, innerHeight - $("board").offsetHeight - 12)}px`);
  document.documentElement.style.setProperty("--bar", `${$("sum").offsetHeight}px`);
}
const observer = new ResizeObserver(placeBoard);
for (const id of ["board", "sum"]) observer.observe($(id));
let drawnAt = innerWidth;
addEventListener("resize", () => {
  placeBoard();
  if (innerWidth === drawnAt) return; // only a phone's address bar, which comes and goes
  drawnAt = innerWidth;
  drawAll();
});
Object.assign(lab, { state: () => state, productsOf });
