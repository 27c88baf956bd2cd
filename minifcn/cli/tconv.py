"""`minifcn tconv`: explain one transposed convolution."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from minifcn.cli.options import may_write, reader
from minifcn.cli.reporting import OK, say

_DRAWINGS = {"html": ".html", "png": ".png", "gif": ".gif", "conv_gif": ".gif", "npz": ".npz"}


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.lab import arithmetic, values
    from minifcn.lab.report import check_size, describe

    files = {kind: Path(getattr(arguments, kind)) for kind in _DRAWINGS if getattr(arguments, kind) is not None}
    for kind, file in files.items():
        if file.suffix.lower() != _DRAWINGS[kind]:
            raise ValueError(
                f"tconv: --{kind.replace('_', '-')} {file}; a name that ends in {_DRAWINGS[kind]} is needed"
            )
    may_write("tconv", list(files.values()), arguments.overwrite)
    kernel, stride = arguments.kernel, arguments.stride
    if arguments.bilinear and stride == (1, 1) and kernel is None:
        raise ValueError("tconv: --bilinear with stride 1 leaves everything as it is; give --stride, or --kernel")
    w = values.read_filter(arguments.weights) if arguments.weights else None
    if w is not None:
        found = w.shape[2], w.shape[3]
        if kernel is not None and kernel != found:
            asked, there = ("x".join(map(str, size)) for size in (kernel, found))
            raise ValueError(
                f"tconv: --kernel is {asked} and the filter in {arguments.weights} {there}; leave --kernel out"
            )
        kernel = found
    elif kernel is None:
        kernel = (2 * stride[0] - stride[0] % 2, 2 * stride[1] - stride[1] % 2) if arguments.bilinear else (3, 3)
    channels = (1, 1) if w is None else (w.shape[0], w.shape[1])
    if arguments.image is not None:
        if arguments.output_padding is not None:
            raise ValueError("tconv: --image settles the output_padding; leave --output-padding out")
        geom = arithmetic.layer_to(
            arguments.image, kernel, stride, arguments.padding, arguments.dilation, channels=channels
        )
    else:
        geom = arithmetic.layer(
            arguments.input or (5, 5),
            kernel,
            stride,
            arguments.padding,
            arguments.output_padding or (0, 0),
            arguments.dilation,
            channels=channels,
        )
    check_size(geom)
    if w is None:
        w = values.bilinear_filter(kernel) if arguments.bilinear else values.whole_numbers(geom.w_shape)
    y = values.whole_numbers(geom.y_shape).astype(w.dtype)
    say(describe(y, w, geom, bilinear=arguments.bilinear or arguments.weights is not None))
    for kind, file in files.items():
        _draw(kind, file, y, w, geom)
        say(f"\nwritten: {file}")
    return OK


def _draw(kind: str, file: Path, y: Any, w: Any, geom: Any) -> None:
    if kind == "html":
        from minifcn.lab.page import write_page

        write_page(file, y, w, geom)
        return
    if kind == "npz":
        from minifcn.lab.report import values_of
        from minifcn.training.files import write_arrays

        write_arrays(file, values_of(y, w, geom))
        return
    from minifcn.lab.pictures import animate, picture
    from minifcn.lab.values import whole_numbers

    if kind == "gif":
        animate(file, y, w, geom)
    elif kind == "conv_gif":
        animate(file, whole_numbers(geom.x_shape), w, geom, kind="conv")
    else:
        picture(file, y, w, geom)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    size = reader(partial(_numbers, least=1))
    amount = reader(partial(_numbers, least=0))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--input", type=size, metavar="PxQ", help="rows and columns of the scores that go in (5x5)")
    which.add_argument(
        "--image", type=size, metavar="HxW", help="instead: the image that should come out, as the convolution's input"
    )
    parser.add_argument(
        "--kernel", type=size, metavar="IxJ", help="(3, or the file's; with --bilinear twice the stride)"
    )
    parser.add_argument("--stride", type=size, default=(1, 1), metavar="S", help="one number, or two as 2x1 (1)")
    parser.add_argument("--padding", type=amount, default=(0, 0), metavar="P", help="what is cropped (0)")
    parser.add_argument("--output-padding", type=amount, metavar="A", help="what is not cropped at the end (0)")
    parser.add_argument("--dilation", type=size, default=(1, 1), metavar="D", help="distance of the filter's taps (1)")
    filters = parser.add_mutually_exclusive_group()
    filters.add_argument("--bilinear", action="store_true", help="the filter of bilinear interpolation")
    filters.add_argument(
        "--weights",
        metavar="FILE[:NAME]",
        help="a filter from a file of weights: (I, J), or (O, C, I, J) as ConvTranspose2d.weight",
    )
    parser.add_argument("--png", metavar="FILE", help="draw it")
    parser.add_argument("--gif", metavar="FILE", help="draw how the filter slides over the scores")
    parser.add_argument("--conv-gif", metavar="FILE", help="the same of the matching convolution, over the image")
    parser.add_argument("--npz", metavar="FILE", help="save scores y, filter w, image x and, if it is not too large, C")
    parser.add_argument(
        "--html", metavar="FILE", help="write a page with sliders, for inputs up to 12x12, kernels to 16, strides to 8"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _numbers(text: str, least: int) -> tuple[int, int]:
    """(height, width) from "3x2", or from one number for both."""
    numbers = text.lower().replace("×", "x").split("x")
    if len(numbers) > 2 or not all(
        number.isascii() and number.isdigit() and int(number) >= least for number in numbers
    ):
        raise ValueError(f"{text!r} is no whole number from {least} on; one, or two as in 3x2, are needed")
    return int(numbers[0]), int(numbers[-1])
