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
  };
}

let state = initialState();

/** The state as text that can be shared: "input=5x5&kernel=3&…". */
function toHash({ config, separate, weights, scores, view }) {
  const words = lab.SETTINGS.map((key) => `${key}=${separate ? config[key].join("x") : config[key][0]}`);
  return `#${[...words, `weights=${weights}`, `scores=${scores}`, `view=${view}`].join("&")}`;
}

/** The state that such a text stands for; whatever it lacks or cannot mean stays as the page began. */
function fromHash(hash) {
  const next = initialState();
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  if (![...words.keys()].some((key) => lab.SETTINGS.includes(key))) return next;
  next.separate = false;
  next.config = { ...next.config };
  for (const key of lab.SETTINGS) {
    const match = /^(\d{1,3})(?:x(\d{1,3}))?$/.exec(words.get(key) ?? "");
    if (!match) continue;
    const [least, most] = given.ranges[key];
    next.config[key] = [match[1], match[2] ?? match[1]].map((text) => Math.max(least, Math.min(most, Number(text))));
    next.separate ||= match[2] !== undefined;
  }
  next.separate ||= lab.SETTINGS.some((key) => next.config[key][0] !== next.config[key][1]);
  for (const key of ["weights", "scores"]) {
    const value = words.get(key);
    if (Object.hasOwn(NAMES[key], value) && (value !== "given" || GIVEN[key])) next[key] = value;
  }
  if (Object.hasOwn(VIEWS, words.get("view"))) next.view = words.get("view");
  return next;
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
      if (value !== "given" || GIVEN[key]) $(key).append(make("option", { value }, text));
    }
    $(key).addEventListener("change", () => change({ [key]: $(key).value }));
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
  for (const key of ["weights", "scores"]) $(key).value = state[key];
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
  else [selected.pinned, selected.untouched] = [target, false];
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
    : [make("p", {}, "Point at a cell, of any grid on this page.")];
  $("sum").replaceChildren(...lines);
}

// ---- drawing ------------------------------------------------------------------------------------------------------

/** The values that a choice stands for; the given ones only while they fit. */
function valuesOf(key, rows, columns) {
  const [choice, mine] = [state[key], GIVEN[key]];
  if (choice !== "given") return lab[key.toUpperCase()][choice](rows, columns);
  return mine.length === rows && mine[0].length === columns ? mine : lab[key.toUpperCase()].numbers(rows, columns);
}

/** What of the given values is not shown, if anything. */
function unfit() {
  const misses = (key, [rows, columns]) =>
    state[key] === "given" && (GIVEN[key].length !== rows || GIVEN[key][0].length !== columns)
      ? [`The given ${key} are ${GIVEN[key].length} × ${GIVEN[key][0].length}; whole numbers are shown instead.`]
      : [];
  const [o, c] = given.channels;
  const channels = o * c > 1 ? [`Of ${plural(o, "channel")} in and ${c} out, the first of each is shown.`] : [];
  return [...misses("weights", state.config.kernel), ...misses("scores", state.config.input), ...channels].join(" ");
}

function makeScene() {
  const { config } = state;
  const axes = lab.axesOf(config);
  const [H, W] = axes.map(lab.outputSize);
  const [y, w] = [valuesOf("scores", ...config.input), valuesOf("weights", ...config.kernel)];
  return { config, axes, H, W, y, w, x: lab.scatter(y, w, axes) };
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

const roomOf = (element) => Math.max(240, element.clientWidth);

function drawBoard() {
  const [, width] = scene.axes;
  const room = roomOf($("board-image"));
  const filterWidth = Math.min(Math.round(room * 0.33), 34 * width.kernel);
  const tall = Math.max(220, Math.min(430, innerHeight - 430)); // on a usual screen all of the board is in sight
  $("board-scores").replaceChildren(draw(scoresGrid(scene, { width: room - filterWidth - 32, height: 190 })));
  $("board-filter").replaceChildren(draw(filterGrid(scene, { width: filterWidth, height: 190 })));
  $("board-image").replaceChildren(draw(imageGrid(scene, { width: room, height: tall })));
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

function drawAll() {
  showControls();
  $("unfit").textContent = unfit();
  const error = lab.fault(state.config);
  document.body.classList.toggle("invalid", Boolean(error));
  $("problem").hidden = !error;
  $("reason").textContent = error ? `There is no such layer: ${error.reason}.` : "";
  scene = error ? null : makeScene();
  grids = [];
  if (!error) {
    if (selected.pinned && !stillThere(scene.axes, selected.pinned))
      Object.assign(selected, { pinned: null, untouched: true });
    if (selected.untouched) selected.pinned = firstSelection();
    const times = ([a, b]) => make("b", {}, `${a} × ${b}`);
    $("sizes").replaceChildren(times(state.config.input), " scores become an image of ", times([scene.H, scene.W]));
    $("formulas").replaceChildren(formulaLines(scene));
    drawBoard();
    drawView();
    $("overlap").replaceChildren(...overlapSection(scene, { width: roomOf($("overlap")) }, draw));
    $("matching").replaceChildren(...matchingSection(scene));
    $("pytorch").replaceChildren(...whole(lab.pytorchLine(state.config, given.channels)));
    $("command").replaceChildren(...whole(lab.commandLine(state.config, state.weights)));
    checkAgreement();
  }
  selected.hovered = null;
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
  state = { ...state, ...part };
  drawAll();
  remember();
}

// ---- colours, copying, and the beginning --------------------------------------------------------------------------

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function applyTheme() {
  const chosen = document.querySelector("input[name=theme]:checked").value;
  document.documentElement.dataset.theme = chosen === "auto" ? (systemIsDark.matches ? "dark" : "light") : chosen;
  forgetColours();
}

/** Copy the text of an element; where the browser does not allow it, select it, so that the keys for copying do. */
async function copy(id) {
  getSelection().selectAllChildren($(id));
  try {
    await navigator.clipboard.writeText($(id).textContent);
    return "Copied.";
  } catch {
    return document.execCommand("copy") ? "Copied." : "Selected: press Ctrl + C, or ⌘ + C, to copy.";
  }
}

applyTheme();
buildControls();
buildTabs();
state = fromHash(location.hash);
drawAll();

systemIsDark.addEventListener("change", () => {
  applyTheme();
  drawAll();
});
$("theme").addEventListener("change", () => {
  applyTheme();
  drawAll();
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    $("copied").textContent = await copy(button.dataset.copy);
  });
}
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # is the layer's
  $("board").focus();
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") letGo();
});
addEventListener("popstate", () => {
  clearTimeout(waiting);
  state = fromHash(location.hash);
  drawAll();
});
let drawnAt = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnAt) return; // only a phone's address bar, which comes and goes
  drawnAt = innerWidth;
  drawAll();
});
Object.assign(lab, { state: () => state, productsOf });
