"""Reading photographs and masks with Pillow: whatever is wrong with a file is said in one sentence that names it.

Files are taken for hostile. Pillow knows some forty formats, and runs Ghostscript for one of them (EPS); only those of
photographs and masks are opened. What a header declares is compared with the file before pixels are allocated.
"""

import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from minifcn.weights.faults import said

__all__ = ["read_image", "read_mask"]

#: From a colour of a mask to its class number (or 255, ignored).
Colors = Mapping[tuple[int, int, int], int]

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_LOSSY = ("JPEG", "MPO")  # Pillow calls a JPEG with further ones behind it MPO
# Decoded pixels that any file may have, in bytes, by how many a pixel takes: 8192×8192 of a mask; 3200×3200 in
# colour, which are there twice while an image is turned upright. Larger images need a byte of file for so many, twenty
# pixels in colour; cameras write a byte for two to eight.
_ANYWAY = {1: 64 << 20, 4: 40 << 20}
_PER_BYTE = 80
# Scans of a JPEG: progressive ones have about ten, and each costs a pass over all pixels. What follows the image, such
# as a phone's film, has the two bytes that announce one by chance: once in 64 KiB.
_MOST_SCANS = 100
_SCAN_BYTES = 16 << 10  # of the file for each further one


def _decode(path: Path, op: str) -> tuple[Image.Image, str]:
    """The first frame of an image file, upright, with all of its pixels read; and the format's name."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a path with a zero byte is a ValueError
        raise FileNotFoundError(f"{op}: no file {path}; check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{op}: {path} is a folder; give an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{op}: {path} is a pipe, a socket or a device; give an image file")
    if status.st_size == 0:
        raise ValueError(f"{op}: {path} is empty (0 bytes); copy it again")
    try:
        # Pillow reads from the mapped file: it gives what is there, however many bytes are asked for
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _decoded(data, op)
    except PermissionError:
        raise PermissionError(f"{op}: {path} may not be read; check its permissions") from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{op}: {path} is not an image that Pillow knows, or of a kind that is not read; give a PNG or JPEG file"
        ) from None
    except _Fault as fault:
        raise ValueError(f"{op}: {path} {fault}") from None
    except MemoryError:
        raise
    except Exception as error:  # what Pillow's decoders raise on files that are cut short or damaged is of many kinds
        raise ValueError(f"{op}: {path} is truncated or damaged ({said(error)}); copy it again") from None


class _Fault(Exception):
    """What is wrong with an image that may be whole, and what would be right."""


def _decoded(data: mmap.mmap, op: str) -> tuple[Image.Image, str]:
    stream: Any = data  # it has a stream's methods, as far as Pillow needs them
    with Image.open(stream, formats=_FORMATS) as opened:
        kind = opened.format or "unknown"
        # Pillow's pixels: 4 bytes in colour, which read_image makes of all; 1 in grey, palettes and black and white
        width = 1 if op == "read_mask" and opened.mode in ("1", "L", "P") else 4
        anyway = _ANYWAY[width] // 2 if kind == "WEBP" else _ANYWAY[width]  # libwebp holds the pixels once more
        if opened.height * (width * opened.width + 8) > max(anyway, _PER_BYTE * len(data)):  # Pillow points to each row
            raise _Fault(
                f"declares {opened.width}×{opened.height} pixels in {len(data)} bytes; an image as large as that needs "
                f"a byte for {_PER_BYTE // width} pixels"
            )
        if kind in _LOSSY:
            _check_scans(data)
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)  # no copy where it is upright already
        return opened, kind


def _check_scans(data: mmap.mmap) -> None:
    most = _MOST_SCANS + len(data) // _SCAN_BYTES
    scans = at = 0
    while at := data.find(b"\xff\xda", at) + 1:
        scans += 1
        if scans > most:
            raise _Fault(f"has more than {most} scans; save it again as a plain JPEG or PNG file")


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a photograph (PNG, JPEG, TIFF, BMP, GIF, WebP or PPM) as RGB: uint8 (H, W, 3), upright.

    Grey, palette, RGBA (alpha is dropped), CMYK and 16-bit images (scaled from 0 … 65535 to 0 … 255) are converted, and
    the EXIF orientation is applied: the array is as a viewer shows the picture.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, truncated, damaged, no image of those formats, or larger than its bytes explain.
    """
    path = Path(path)
    image, _ = _decode(path, "read_image")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip rather than scale
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"read_image: {path} has values from {grey.min()} to {grey.max()}; photographs have 8 or 16 bits"
            )
        return np.repeat(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
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
    if kind in _LOSSY:
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
