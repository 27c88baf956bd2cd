"""Reading photographs and masks with Pillow: whatever is wrong with a file is said in one sentence that names it."""

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["read_image", "read_mask"]

#: From a colour of a mask to its class number (or 255, ignored).
Colors = Mapping[tuple[int, int, int], int]

# What Pillow's decoders raise on files that are cut short, damaged or not images at all.
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def _decode(path: Path, op: str) -> tuple[Image.Image, str]:
    """The first frame of an image file, upright, with all of its pixels read; and the format's name."""
    try:
        size = path.stat().st_size
    except OSError:
        raise FileNotFoundError(f"{op}: no file {path}; check the path") from None
    if path.is_dir():
        raise IsADirectoryError(f"{op}: {path} is a folder; give an image file")
    if size == 0:
        raise ValueError(f"{op}: {path} is empty (0 bytes); copy it again")
    try:
        with Image.open(path) as opened:
            kind = opened.format or "unknown"
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            return upright, kind
    except PermissionError:
        raise PermissionError(f"{op}: {path} may not be read; check its permissions") from None
    except UnidentifiedImageError:
        raise ValueError(f"{op}: {path} is not an image that Pillow knows; give a PNG or JPEG file") from None
    except _FAULTS as fault:
        raise ValueError(f"{op}: {path} is truncated or damaged ({fault}); copy it again") from None


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a photograph of any kind as RGB: uint8 (H, W, 3), upright.

    Grey, palette, RGBA (alpha is dropped), CMYK and 16-bit images (scaled from 0 … 65535 to 0 … 255) are converted, and
    the EXIF orientation is applied: the array is as a viewer shows the picture.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, damaged, or no image.
    """
    path = Path(path)
    image, _ = _decode(path, "read_image")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip rather than scale
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"read_image: {path} has values from {grey.min()} to {grey.max()}; photographs have 8 or 16 bits"
            )
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(f"read_image: {path} holds floating-point numbers; save it with 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of the transparency that it drops
    return np.array(image.convert("RGB"))


def read_mask(path: str | os.PathLike[str], colors: Colors | None = None) -> NDArray[np.integer]:
    """Read a mask's class numbers: unsigned integers (H, W), 8 or 16 bits as the file has them.

    Args:
        path: a grey or palette image whose values (palette indices) are class numbers; or, with ``colors``, a mask in
            any colours.
        colors: from (red, green, blue) to class number, 255 for ignored, for masks drawn in colours.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, damaged, no image, lossy (JPEG), in colours while ``colors`` is None, or
            has a colour that ``colors`` lacks.
    """
    path = Path(path)
    image, kind = _decode(path, "read_mask")
    if kind in ("JPEG", "MPO", "JPEG2000"):
        raise ValueError(f"read_mask: {path} is a {kind} file, whose compression corrupts labels; save masks as PNG")
    if colors is not None:
        if image.mode[0] in "IF":
            raise ValueError(f"read_mask: {path} has more than 8 bits ({image.mode}), but colors= maps 8-bit colours")
        return _from_colors(np.array(image.convert("RGBA").convert("RGB")), colors, path)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in ("L", "P") and not image.mode.startswith("I"):
        raise ValueError(
            f"read_mask: {path} is {image.mode}; convert it to class indices (8-bit grey or palette PNG), or in Python "
            "open the folder with colors={(r, g, b): class}"
        )
    return np.array(image)


def _from_colors(image: NDArray[np.uint8], colors: Colors, path: Path) -> NDArray[np.uint8]:
    """Look every pixel's colour up: uint8 (H, W, 3) → uint8 (H, W)."""
    place = np.array([1 << 16, 1 << 8, 1])  # a colour as one number
    keys = np.array([np.dot(color, place) for color in colors])
    order = keys.argsort()
    keys, values = keys[order], np.array(list(colors.values()), np.uint8)[order]
    codes = image @ place  # (H, W)
    at = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    unknown = keys[at] != codes
    if unknown.any():
        found = np.unique(image[unknown], axis=0)
        shown = ", ".join(str(tuple(color)) for color in found[:3].tolist())
        raise ValueError(
            f"read_mask: {path} has {len(found)} colours that colors= lacks (first: {shown}); "
            "add them, with class 255 for what is to be ignored"
        )
    labels: NDArray[np.uint8] = values[at]
    return labels
