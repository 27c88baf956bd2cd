"""Changing samples: between pixels and network inputs, in size, and at random for training.

Image and labels are always changed together, and both by the half-pixel rule: output pixel p of P covers the input
from p·H/P to (p + 1)·H/P, so its centre p + ½ lies at (p + ½)·H/P. Under any other rule the labels would slide against
the image by up to half a pixel for each change of size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minifcn.data.dataset import Sample
from minifcn.data.labels import IGNORE
from minifcn.models.inputs import TORCHVISION

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "normalize", "denormalize", "resize", "Augment"]

#: The mean and standard deviation of ImageNet's red, green and blue on the scale 0 … 1: what pretrained backbones (in
#: torchvision's convention) expect to be taken out. They serve a network trained from nothing just as well.
IMAGENET_MEAN, IMAGENET_STD = TORCHVISION.mean, TORCHVISION.std

_MEAN, _STD = TORCHVISION.on_bytes()
_MEAN_COLOR = np.rint(_MEAN[:, 0, 0]).astype(np.uint8)


def normalize(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn a picture into a network's input: uint8 (H, W, 3) → float32 (3, H, W), (image/255 − mean) / std.

    Raises:
        TypeError: if the image is not uint8.
        ValueError: if it is not (H, W, 3).

    >>> [round(float(x), 3) for x in normalize(np.full((1, 1, 3), 255, np.uint8)).ravel()]
    [2.249, 2.429, 2.64]
    """
    return TORCHVISION.prepare(image, "normalize")


def denormalize(x: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The inverse of :func:`normalize`: floats (3, H, W) → uint8 (H, W, 3), rounded and clipped to 0 … 255.

    Raises:
        ValueError: if x is not (3, H, W).
    """
    if x.ndim != 3 or x.shape[0] != 3:
        raise ValueError(f"denormalize: x is {x.shape}; expected (3, H, W)")
    pixels = np.rint(x * _STD + _MEAN).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Bring a sample to (H, W): the image bilinearly (averaging when it shrinks), the labels by the nearest.

    Raises:
        ValueError: if a side of ``size`` is below 1.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"resize: size is {size}; both sides must be at least 1 pixel")
    return _part(sample, (height, width), slice(0, height), slice(0, width))


def _part(sample: Sample, size: tuple[int, int], rows: slice, columns: slice) -> Sample:
    """Rows and columns, of which there are some, of a sample that is brought to a size; only these are computed."""
    image, labels, name = sample
    height, width = labels.shape
    if size == (height, width):
        whole = rows == slice(0, height) and columns == slice(0, width)
        return sample if whole else Sample(image[rows, columns], labels[rows, columns], name)
    # the edges of the part, in pixels of the image; neighbours beyond them are seen all the same
    box = (
        columns.start * width / size[1], rows.start * height / size[0],
        columns.stop * width / size[1], rows.stop * height / size[0],
    )  # fmt: skip
    wanted = (columns.stop - columns.start, rows.stop - rows.start)
    picture = Image.fromarray(image).resize(wanted, Image.Resampling.BILINEAR, box)
    h, v = _nearest(height, size[0])[rows], _nearest(width, size[1])[columns]
    return Sample(np.array(picture), labels[h[:, None], v], name)


def _nearest(size: int, new: int) -> NDArray[np.int64]:
    """⌊(p + ½)·size/new⌋ for p = 0 … new − 1, in integers: the input pixel under each output pixel's centre."""
    return (2 * np.arange(new, dtype=np.int64) + 1) * size // (2 * new)


@dataclass(frozen=True)
class Augment:
    """Random scale, then crop, then flip, then brightness and contrast: (Sample, rng) → Sample.

    Args:
        scale: (lowest, highest) factor, drawn so that ½ and 2 are equally likely (uniform in the logarithm); None
            leaves the size.
        crop: (H, W) cut out at a random place. Where the image is smaller it is set at a random place into ImageNet's
            mean colour, labelled 255. None leaves the frame.
        flip: mirror left and right, one time in two.
        brightness: the most that is added or taken away, as a fraction of full scale, 0 … 1.
        contrast: the most by which differences from the mean colour grow or shrink, as a fraction, 0 … 1.

    Raises:
        ValueError: if an argument is outside its range.

    >>> augment = Augment(scale=(0.5, 2), crop=(64, 64), flip=True)
    >>> sample = Sample(np.zeros((48, 80, 3), np.uint8), np.zeros((48, 80), np.uint8), "black")
    >>> augment(sample, np.random.default_rng(0)).image.shape
    (64, 64, 3)
    """

    scale: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] < np.inf:
            raise ValueError(f"Augment: scale is {self.scale}; expected (lowest, highest), positive and in this order")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"Augment: crop is {self.crop}; both sides must be at least 1 pixel")
        for what in ("brightness", "contrast"):
            if not 0 <= getattr(self, what) <= 1:
                raise ValueError(f"Augment: {what} is {getattr(self, what)}; it must lie between 0 and 1")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.labels.shape
        if self.scale is not None:
            low, high = self.scale
            factor = low * (high / low) ** rng.random()
            height, width = max(1, round(height * factor)), max(1, round(width * factor))
        if self.crop is not None:
            sample = _crop(sample, (height, width), self.crop, rng)
        else:
            sample = resize(sample, (height, width))
        image, labels, name = sample
        if self.flip and rng.random() < 0.5:
            image, labels = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(labels[:, ::-1])
        if self.brightness or self.contrast:
            shift = 255 * rng.uniform(-self.brightness, self.brightness)
            gain = 1 + rng.uniform(-self.contrast, self.contrast)
            mean = image.mean(axis=(0, 1), dtype=np.float32)
            changed = (image - mean) * np.float32(gain) + (mean + np.float32(shift))
            image = np.rint(changed).clip(0, 255).astype(np.uint8)
        return Sample(image, labels, name)


def _crop(sample: Sample, scaled: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """A crop of a sample that is brought to the size `scaled`, of which only what the crop shows is computed."""
    source, target = [], []
    for have, want in zip(scaled, size, strict=True):
        at = int(rng.integers(abs(have - want) + 1))
        both = min(have, want)
        source.append(slice(at, at + both) if have > want else slice(0, both))
        target.append(slice(at, at + both) if have < want else slice(0, both))
    image, labels, name = _part(sample, scaled, source[0], source[1])
    new_image = np.empty((*size, 3), np.uint8)
    new_image[:] = _MEAN_COLOR
    new_labels = np.full(size, IGNORE, np.uint8)
    new_image[target[0], target[1]] = image
    new_labels[target[0], target[1]] = labels
    return Sample(new_image, new_labels, name)
