"""What the numbers in a label map mean: class names, the ignored label, and the colours they are drawn in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "IGNORE",
    "IGNORE_COLOR",
    "VOC_CLASSES",
    "CAMVID_CLASSES",
    "SHAPES_CLASSES",
    "voc_palette",
    "CAMVID_PALETTE",
    "SHAPES_PALETTE",
    "colorize",
    "overlay",
]

#: The label of a pixel that no class claims: void, or too close to an edge to call. No loss and no metric counts it.
IGNORE = 255

#: Ignored pixels are drawn white; the VOC formula never goes above 224, so no class has this colour.
IGNORE_COLOR = (255, 255, 255)

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

CAMVID_CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)

SHAPES_CLASSES = ("background", "disk", "square", "triangle", "cross", "ring")


def voc_palette(num_classes: int) -> NDArray[np.uint8]:
    """The PASCAL VOC colours of labels 0 … num_classes − 1: (num_classes, 3).

    A label's bits are dealt to red, green and blue in turn, and each channel fills from its highest bit downwards:
    bit 3k + c of the label is bit 7 − k of channel c. Small labels therefore differ in high bits, which is what makes
    neighbouring classes easy to tell apart.

    Args:
        num_classes: how many colours, 1 … 256.

    Raises:
        ValueError: if num_classes is outside 1 … 256.

    Everingham et al., *The PASCAL VOC Challenge 2012 Development Kit* (its colour map).

    >>> voc_palette(4).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    if not 1 <= num_classes <= 256:
        raise ValueError(f"voc_palette: num_classes is {num_classes}; an 8-bit palette has 1 to 256 colours")
    label = np.arange(num_classes)
    palette = np.zeros((num_classes, 3), np.int64)
    for bit in range(8):
        k, c = divmod(bit, 3)
        palette[:, c] |= (label >> bit & 1) << (7 - k)
    return palette.astype(np.uint8)


def _rgb(*rows: tuple[int, int, int]) -> NDArray[np.uint8]:
    palette = np.array(rows, np.uint8)
    palette.setflags(write=False)  # shared by every dataset of its kind
    return palette


CAMVID_PALETTE = _rgb(
    (110, 190, 255),  # Sky
    (150, 75, 60),  # Building
    (225, 190, 120),  # Pole
    (95, 90, 105),  # Road
    (190, 110, 220),  # Pavement
    (60, 135, 55),  # Tree
    (255, 225, 0),  # SignSymbol
    (170, 165, 170),  # Fence
    (30, 50, 190),  # Car
    (225, 25, 70),  # Pedestrian
    (0, 205, 175),  # Bicyclist
)

SHAPES_PALETTE = _rgb(
    (38, 43, 56),  # background
    (238, 93, 80),  # disk
    (82, 172, 98),  # square
    (250, 195, 75),  # triangle
    (75, 130, 215),  # cross
    (175, 105, 200),  # ring
)


def colorize(labels: ArrayLike, palette: ArrayLike) -> NDArray[np.uint8]:
    """Draw a label map in colours: integers (H, W), palette (K, 3) → uint8 (H, W, 3); ignored pixels are white.

    Args:
        labels: integers (H, W), each 0 … K − 1 or 255 (ignored).
        palette: colours (K, 3), 0 … 255.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if the shapes are wrong or a label has no colour.

    >>> colorize([[0, 1, 255]], voc_palette(2)).tolist()
    [[[0, 0, 0], [128, 0, 0], [255, 255, 255]]]
    """
    labels, palette = np.asarray(labels), np.asarray(palette)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"colorize: labels are {labels.dtype}; they must be integers")
    if labels.ndim != 2 or palette.ndim != 2 or palette.shape[1] != 3 or not 1 <= len(palette) <= 256:
        raise ValueError(
            f"colorize: labels {labels.shape} and palette {palette.shape}; expected (H, W) and (K, 3) with K ≤ 256"
        )
    bad = labels[((labels < 0) | (labels >= len(palette))) & (labels != IGNORE)]
    if bad.size:
        raise ValueError(
            f"colorize: label {bad[0]} has no colour in a palette of {len(palette)}; 255 marks ignored pixels"
        )
    table = np.empty((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE] = IGNORE_COLOR
    picture: NDArray[np.uint8] = table[labels]
    return picture


def overlay(image: NDArray[np.uint8], labels: ArrayLike, palette: ArrayLike, alpha: float = 0.5) -> NDArray[np.uint8]:
    """Lay coloured labels over an image: uint8 (H, W, 3), integers (H, W) → uint8 (H, W, 3).

    Args:
        image: RGB (H, W, 3).
        labels: integers (H, W), as in :func:`colorize`.
        palette: colours (K, 3).
        alpha: 0 shows the image alone, 1 the colours alone.

    Raises:
        ValueError: if image and labels differ in size, or alpha is outside 0 … 1.

    >>> overlay(np.full((1, 1, 3), 100, np.uint8), [[1]], voc_palette(2), alpha=0.25).tolist()
    [[[107, 75, 75]]]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"overlay: alpha is {alpha}; it must lie between 0 (image alone) and 1 (colours alone)")
    colors = colorize(labels, palette)
    if image.shape != colors.shape:
        raise ValueError(f"overlay: image {image.shape} and labels {colors.shape[:2]} differ in size")
    blend = image + np.float32(alpha) * (colors.astype(np.float32) - image)
    return np.rint(blend).astype(np.uint8)


def class_names(num_classes: int) -> Sequence[str]:
    """Names for classes that came without any: ``class 0``, ``class 1``, …"""
    return [f"class {label}" for label in range(num_classes)]
