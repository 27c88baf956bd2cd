/*
 * Colours. Roles (scores blue, image orange, filter green) are CSS variables, which differ between light and dark; what
 * is computed from a value or a phase is computed here. No colour is the only carrier of a meaning: numbers, positions
 * and outlines say the same.
 */
const [colours, ramps] = [new Map(), new Map()];

const isDark = () => document.documentElement.dataset.theme === "dark";

/** The CSS variable of this name, as #rrggbb. */
function colour(name) {
  if (!colours.has(name))
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

const STEPS = 128;

/** STEPS + 1 colours from the panel's to that of a role: thousands of cells share them. */
function ramp(role) {
  if (!ramps.has(role)) {
    const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const [from, to] = [channels(colour("panel")), channels(colour(role))];
    const at = (part) => from.map((value, k) => Math.round(value + (to[k] - value) * part)).join(" ");
    ramps.set(
      role,
      Array.from({ length: STEPS + 1 }, (_, k) => `rgb(${at(k / STEPS)})`),
    );
  }
  return ramps.get(role);
}

/** A part 0…1 of a role's colour, laid on the panel's. */
const mixed = (role, part) => ramp(role)[Math.round(part * STEPS)];

function forgetColours() {
  colours.clear();
  ramps.clear();
}

/** The background of a value in a grid whose largest magnitude is `largest`: light enough for text to be read on it. */
function valueFill(role, value, largest) {
  const part = largest > 0 ? Math.min(1, Math.abs(value) / largest) : 0;
  return mixed(value < 0 ? "negative" : role, value === 0 ? 0.03 : 0.08 + 0.27 * part);
}

/** The background of a count 0…most. */
const heatFill = (count, most) =>
  count === 0 ? colour("panel") : mixed("image", 0.08 + (isDark() ? 0.3 : 0.45) * (count / most));

const HUES = [255, 65, 340, 155, 300, 110, 205, 25];

/** One of a·b colours, told apart by hue (k of a) and lightness (l of b): for phases, and for taps. */
function tint(k, a, l, b) {
  const hue = a <= HUES.length ? HUES[k] : (255 + (360 * k) / a) % 360;
  const step = b > 1 ? l / (b - 1) : 0;
  return isDark() ? `oklch(${0.32 + 0.16 * step} 0.075 ${hue})` : `oklch(${0.93 - 0.15 * step} 0.075 ${hue})`;
}
