"""Scenes that the package draws itself: five shapes in any colour on any ground, so that only the outline tells.

Every object is a signed distance d(x, y), negative inside. One array then gives all that is needed: the antialiased
image (coverage ½ − d, clipped), the labels (d < 0) and the ignored rim (|d| < 1), which is two pixels wide as in VOC.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from minifcn.data.dataset import Sample
from minifcn.data.labels import IGNORE, SHAPES_CLASSES, SHAPES_PALETTE

__all__ = ["Shapes"]

SPLITS = ("train", "val", "test")

Plane = NDArray[np.floating]  # (h, w): coordinates, distances or amounts
Color = NDArray[np.float64]  # (3,): red, green, blue, 0 … 1


# ---- Outlines: (x, y) in pixels about the centre, r the object's radius. Their areas are alike (2.0 to 2.9 r²), so
# that size does not give the class away.


def _disk(x: Plane, y: Plane, r: float) -> Plane:
    return np.hypot(x, y) - 0.95 * r


def _square(x: Plane, y: Plane, r: float) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8 * r


def _triangle(x: Plane, y: Plane, r: float) -> Plane:
    # Three half-planes: one below the base, two that face 30° above the horizontal. An equilateral triangle's inradius
    # is half its circumradius, here 1.25 r.
    return np.maximum(y, math.sqrt(0.75) * np.abs(x) - 0.5 * y) - 0.625 * r


def _cross(x: Plane, y: Plane, r: float) -> Plane:
    # |x|, |y| < r with the smaller of the two below the half-width of an arm.
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - r, np.minimum(x, y) - 0.36 * r)


def _ring(x: Plane, y: Plane, r: float) -> Plane:
    return np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r


OUTLINES: dict[str, Callable[[Plane, Plane, float], Plane]] = {
    "disk": _disk,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}
TILT = math.radians(20)  # at any angle whatever, squares and triangles take far longer to learn apart
REACH = 1.25  # the farthest that any outline goes from its centre, in radii (the triangle's corner)


# ---- Surfaces: how far to mix from one colour to the other, 0 … 1, in coordinates with a period of 1.


def _unit(amount: Plane) -> Plane:
    clipped: Plane = np.clip(amount, 0, 1)
    return clipped


def _stripes(u: Plane, v: Plane) -> Plane:
    return _unit(0.5 + 1.5 * np.sin(2 * np.pi * u))


def _checks(u: Plane, v: Plane) -> Plane:
    return _unit(0.5 + 2 * np.sin(np.pi * u) * np.sin(np.pi * v))


def _dots(u: Plane, v: Plane) -> Plane:
    return _unit(2 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v)) - 1)


def _gradient(u: Plane, v: Plane) -> Plane:
    return _unit(0.5 + u / 6)


def _plain(u: Plane, v: Plane) -> Plane:
    return np.zeros_like(u)


SURFACES = (_stripes, _checks, _dots, _gradient, _plain)


def _surface(x: Plane, y: Plane, color: Color, unit: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A texture in two tones of one colour, at a random angle and scale: (h, w, 3)."""
    pattern = SURFACES[rng.integers(len(SURFACES))]
    angle, period = rng.uniform(0, 2 * np.pi), unit * rng.uniform(6, 15)
    du, dv = math.cos(angle) / period, math.sin(angle) / period
    other = color + rng.uniform(0.1, 0.35) * (rng.integers(2) - color)  # towards black or white
    mix = pattern(x * du + y * dv, y * du - x * dv)
    return (color + mix[..., None] * (other - color)).astype(np.float32)


def _new_color(taken: list[Color], rng: np.random.Generator) -> Color:
    """Of a few random colours the one farthest from those already in the scene: every object can be seen."""
    candidates = rng.uniform(0, 1, (8, 3))
    gaps: NDArray[np.float64] = np.linalg.norm(candidates[:, None] - np.stack(taken), axis=2).min(axis=1)
    best: Color = candidates[gaps.argmax()]
    return best


class Shapes:
    """Drawn scenes of disks, squares, triangles, crosses and rings, with exact labels: no download, no two alike.

    The objects have random sizes, tilts (up to 20°), colours and textures, lie over one another, and may leave the
    frame; the scene has a texture of its own, uneven light and noise. Class, colour and texture are independent,
    so only the outline tells the class. Scene i is a function of (seed, split, i): no two splits share a scene, and a
    longer dataset begins with the shorter one. Scenes are drawn when they are asked for, and nothing is kept.

    Args:
        count: the number of scenes, at least 1.
        size: (H, W) of each in pixels, at least (32, 32). Objects have radii of 0.16 to 0.28 of the shorter side.
        seed: any non-negative integer.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: if an argument is outside its range.

    >>> scenes = Shapes(count=2, size=(48, 64), split="val")
    >>> image, labels, name = scenes[0]
    >>> image.shape, labels.shape, name
    ((48, 64, 3), (48, 64), 'shapes-val-0-0000')
    """

    classes: tuple[str, ...] = SHAPES_CLASSES
    palette: NDArray[np.uint8] = SHAPES_PALETTE
    num_classes: int = len(SHAPES_CLASSES)

    def __init__(
        self, count: int = 2000, size: tuple[int, int] = (128, 128), seed: int = 0, split: str = "train"
    ) -> None:
        if count < 1:
            raise ValueError(f"Shapes: count is {count}; a dataset needs at least 1 scene")
        if len(size) != 2 or min(size) < 32:
            raise ValueError(f"Shapes: size is {size}; scenes are (H, W) with at least 32 pixels on each side")
        if seed < 0:
            raise ValueError(f"Shapes: seed is {seed}; it must not be negative")
        if split not in SPLITS:
            raise ValueError(f"Shapes: unknown split {split!r}; the splits are {', '.join(SPLITS)}")
        self.count, self.size, self.seed, self.split = count, (int(size[0]), int(size[1])), seed, split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not -self.count <= index < self.count:
            raise IndexError(f"Shapes: scene {index} of {self.count}")
        index %= self.count
        key = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), index))
        image, labels = _draw(*self.size, np.random.default_rng(key))
        return Sample(image, labels, f"shapes-{self.split}-{self.seed}-{index:04d}")


def _draw(height: int, width: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One scene: the ground, then the objects from the farthest to the nearest, then light and noise."""
    short = min(height, width)
    unit = short / 128
    v, h = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5  # pixel centres
    x, y = np.meshgrid(v - width / 2, h - height / 2)

    colors = [0.3 + 0.4 * rng.random(3)]  # a muted ground, from which objects of any colour stand out
    image = _surface(x, y, colors[0], unit, rng)
    labels = np.zeros((height, width), np.uint8)
    for cx, cy, r in _places(height, width, rng):
        label = int(rng.integers(1, len(SHAPES_CLASSES)))
        colors.append(_new_color(colors, rng))
        reach = REACH * r + 2
        box = (
            slice(max(0, math.floor(cy - reach)), math.ceil(cy + reach)),
            slice(max(0, math.floor(cx - reach)), math.ceil(cx + reach)),
        )
        x, y = np.meshgrid(v[box[1]] - np.float32(cx), h[box[0]] - np.float32(cy))
        angle = rng.uniform(-TILT, TILT)
        c, s = math.cos(angle), math.sin(angle)
        d = OUTLINES[SHAPES_CLASSES[label]](c * x + s * y, c * y - s * x, r)
        coverage = _unit(0.5 - d)[..., None]
        image[box] += coverage * (_surface(x, y, colors[-1], unit, rng) - image[box])
        labels[box][d < 0] = label
        labels[box][np.abs(d) < 1] = IGNORE

    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    light_h = 1 + strength * math.sin(angle) * (h / height - 0.5)
    light_v = strength * math.cos(angle) * (v / width - 0.5)
    image *= (light_h[:, None] + light_v)[..., None]
    image += np.float32(rng.uniform(0.01, 0.03)) * rng.standard_normal(image.shape, np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), labels


def _places(height: int, width: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centres and radii (x, y, r) of objects that hide at most a part of one another, about 4 in a square scene."""
    short = min(height, width)
    wanted = round(rng.uniform(2.5, 6.5) * height * width / short**2)
    placed: list[tuple[float, float, float]] = []
    for _ in range(4 * wanted):  # a crowded scene has fewer objects, never a hidden one
        r = short * rng.uniform(0.16, 0.28)
        cx, cy = rng.uniform(0.6 * r, width - 0.6 * r), rng.uniform(0.6 * r, height - 0.6 * r)
        if all(math.hypot(cx - ox, cy - oy) > 0.8 * (r + other) for ox, oy, other in placed):
            placed.append((cx, cy, r))
        if len(placed) == wanted:
            break
    return placed
