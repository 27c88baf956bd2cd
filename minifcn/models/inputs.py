"""What a trained network expects of an image: its channels' order, its scale, and what is taken out and divided by.

A network trained on blue, green, red from 0 to 255 sees nonsense in red, green, blue around 0, and says so nowhere: its
scores are merely bad. So what a network expects has a name here, and `fold` moves it into the first convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
ORDERS = ("RGB", "BGR")


@dataclass(frozen=True, slots=True)
class Input:
    """(color·scale/255 − mean)/std for each of three channels, of colors from 0 to 255.

    Args:
        order: "RGB" or "BGR": which channel comes first.
        scale: what white is before the mean is taken out: 1 or 255.
        mean, std: per channel, in that order.

    Raises:
        ValueError: another order or scale, not three numbers, or a std that is not positive.
    """

    order: str
    scale: float
    mean: Color
    std: Color = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"Input: order is {self.order!r}; 'RGB' or 'BGR' is needed")
        if self.scale not in (1, 255):
            raise ValueError(f"Input: scale is {self.scale!r}; 1 or 255 is needed")
        for what in ("mean", "std"):
            values = getattr(self, what)
            try:
                numbers = tuple(map(float, values))
            except (TypeError, ValueError):
                numbers = ()
            if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
                raise ValueError(f"Input: {what} is {values!r}; a number for each of three channels is needed")
            object.__setattr__(self, what, numbers)  # a list of the same numbers is the same Input
        if min(self.std) <= 0:
            raise ValueError(f"Input: std is {self.std}; positive numbers are needed")

    def prepare(self, image: NDArray[np.uint8], op: str = "prepare") -> NDArray[np.float32]:
        """Turn a picture into a network's input: uint8 (H, W, 3), RGB → float32 (3, H, W).

        Args:
            image: as `mf.data.read_image` returns it, whatever `order` is.
            op: who asks, for messages.

        Raises:
            TypeError: if the image is not uint8.
            ValueError: if it is not (H, W, 3).

        >>> CAFFE.prepare(np.full((1, 1, 3), (255, 0, 0), np.uint8)).ravel().tolist()  # red, which comes last
        [-104.00698852539062, -116.66876983642578, 132.32107543945312]
        """
        if image.dtype != np.uint8:
            raise TypeError(f"{op}: image is {image.dtype}; it must be uint8, 0 … 255")
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{op}: image is {image.shape}; expected (H, W, 3)")
        ordered = image[..., ::-1] if self.order == "BGR" else image
        out: NDArray[np.float32] = ordered.transpose(2, 0, 1).astype(np.float32, order="C")
        mean, std = self.on_bytes()
        out -= mean
        if (std != 1).any():
            out /= std
        return out

    def on_bytes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(mean, std), each (3, 1, 1), on the scale 0 … 255: what is subtracted from a byte, and divided by."""
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        factor = np.float32(255 / self.scale)
        return mean * factor, std * factor

    def describe(self) -> str:
        """A short phrase.

        >>> CAFFE.describe()
        'BGR 0 … 255, minus (104.00699, 116.66877, 122.67892)'
        >>> TORCHVISION.describe()
        'RGB 0 … 1, minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)'
        """
        text = f"{self.order} 0 … {self.scale:g}, minus {self.mean}"
        return text if self.std == (1, 1, 1) else f"{text}, divided by {self.std}"


#: ImageNet's mean and standard deviation, as all of torchvision's weights expect them.
TORCHVISION = Input("RGB", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: ImageNet's mean colour only, as the Caffe models of FCN and HED expect it.
CAFFE = Input("BGR", 255, (104.00699, 116.66877, 122.67892))
#: Keras' preprocess_input in its mode "caffe", which its VGG networks were trained for.
KERAS = Input("BGR", 255, (103.939, 116.779, 123.68))


def fold(
    weight: NDArray[np.floating], bias: NDArray[np.floating], trained: Input, given: Input
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The first convolution's (weight, bias) for images prepared as `given`, of a network trained on `trained`.

    Both are affine in the same colours, so trained = a·given + b for each channel: a goes into the weight, and Σ w·b
    over the filter into the bias. Where the filter lies on the image the scores stay what they were, to rounding. Where
    it reaches into zero padding they do not: 0 is `trained`'s mean colour before and `given`'s after, which adds
    Σ w·b over the padded part of the filter. Between CAFFE and TORCHVISION |b| is below 1 grey level of 255.

    Args:
        weight: (O, 3, I, J), as trained.
        bias: (O,), as trained.

    Returns:
        Fresh arrays of the same shapes and dtypes; the arithmetic is float64's.

    Raises:
        ValueError: for other shapes.

    >>> w, b = fold(np.ones((1, 3, 1, 1)), np.zeros(1), CAFFE, TORCHVISION)
    >>> image = np.full((1, 1, 3), (10, 20, 30), np.uint8)
    >>> bool(np.isclose((w[0] * TORCHVISION.prepare(image)).sum() + b, CAFFE.prepare(image).sum(), rtol=1e-6)[0])
    True
    """
    if weight.ndim != 4 or weight.shape[1] != 3 or bias.shape != weight.shape[:1]:
        shapes = f"weight {weight.shape}, bias {bias.shape}"
        raise ValueError(f"fold: {shapes}; (O, 3, I, J) and (O,) are needed, for images of three channels")
    a, b = affine(trained, given)
    w = weight.astype(np.float64)
    shift = np.einsum("ocij,c->o", w, b)
    w *= a[:, None, None]
    if trained.order != given.order:
        w = w[:, ::-1]  # the channels in the order in which they are given
    return np.ascontiguousarray(w, weight.dtype), (bias + shift).astype(bias.dtype)


def affine(trained: Input, given: Input) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(a, b), each (3,) in `trained`'s order of channels, with which trained = a·given + b holds for every colour."""
    turn = slice(None, None, 1 if trained.order == given.order else -1)
    (mean_t, std_t), (mean_g, std_g) = ((np.array(i.mean), np.array(i.std)) for i in (trained, given))
    ratio = trained.scale / given.scale
    return ratio * std_g[turn] / std_t, (ratio * mean_g[turn] - mean_t) / std_t
