"""Random arguments of convolutions, pools, resizing and the other functions of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from arguments import WRONG_BOOLS, WRONG_FLOATS, WRONG_INTS, WRONG_PAIRS, Draw, Value, draws, flat

Drawn = tuple[tuple[Any, ...], dict[str, Any]]
WRONG_GROUPS = (*WRONG_INTS, 2, 3, 5, 7)
WRONG_MODES = ("cubic", "Nearest", "", None, 1, "linear", "area")


def convolution(d: Draw) -> tuple[int, int, int, int, int]:
    """(groups, channels in and out per group, filter rows and columns)."""
    groups = d.pick(1, 1, 1, 2, 3)
    return groups, d.size(1, 2), d.size(1, 2), d.pick(1, 2, 3, 3, d.size(1, 5)), d.pick(1, 2, 3, 3, d.size(1, 5))


def conv2d_padding(d: Draw) -> Any:
    return d.pick(0, d.pair(0, 2), d.pair(0, 3), "same", "valid")


@draws("conv2d")
def conv2d(d: Draw) -> Drawn:
    groups, c, o, i, j = convolution(d)
    padding = conv2d_padding(d)
    stride = 1 if padding == "same" and d.chance(0.8) else d.pair(1, 3)
    image = d.size(4, 8), d.size(4, 8)
    return d.call(
        {"input": d.floats(*d.batch(), c * groups, *image), "weight": d.floats(o * groups, c, i, j)},
        {
            "bias": d.pick(None, d.floats(o * groups)),
            "stride": stride,
            "padding": padding,
            "dilation": d.pick(1, 1, d.pair(1, 2)),
            "groups": d.as_int(groups),
        },
        {
            "stride": WRONG_PAIRS,
            "padding": (*WRONG_PAIRS, "Same", "full", "", (4, 9)),
            "dilation": (*WRONG_PAIRS, 4, 9),
            "groups": WRONG_GROUPS,
        },
    )


def output_size(d: Draw, image: tuple[int, int], more: int) -> Any:
    """A size (H, W) for the inverse of a window, up to `more` larger than the smallest one; now and then (N,C,H,W)."""
    size = (image[0] + d.int(0, more), image[1] + d.int(0, more))
    wrong = (
        (*size, 1), (size[0],), size[0], (size[0] - 1, size[1]), (size[0], size[1] + more + 1),
        (float(size[0]), size[1]), (1, 1), (0, size[1]), (-1, 3), "9", (None, 3),
    )  # fmt: skip
    if d.spoilt and d.chance(0.3):
        return d.pick(*wrong)
    return d.pick(size, size, list(size), (1, 2, *size), (2, *size), (np.int64(size[0]), size[1]))


def smallest_image(
    scores: tuple[int, int], w: tuple[int, int], stride: Any, padding: Any, dilation: Any
) -> tuple[int, int]:
    s, p, d = ((*x, *x)[:2] if isinstance(x, tuple | list) else (x, x) for x in (stride, padding, dilation))
    rows, columns = ((scores[k] - 1) * s[k] - 2 * p[k] + d[k] * (w[k] - 1) + 1 for k in range(2))
    return int(rows), int(columns)


@draws("conv_transpose2d")
def conv_transpose2d(d: Draw) -> Drawn:
    groups, c, o, i, j = convolution(d)
    scores = d.size(2, 4), d.size(2, 4)
    wanted = d.chance(0.2)
    pair = d.plain_pair if wanted else d.pair
    stride, dilation, padding = pair(1, 3), d.pick(1, 1, pair(1, 2)), d.pick(0, 0, pair(0, 1), pair(0, 2))
    extra = d.pair(0, int(np.min(stride)) - 1)
    size = output_size(d, smallest_image(scores, (i, j), stride, padding, dilation), int(np.min(stride)) - 1)
    end = {"output_size": size} if wanted else {"output_padding": d.pick(0, 0, extra, extra, extra, d.pair(0, 1))}
    args, options = d.call(
        {"input": d.floats(*d.batch(), c * groups, *scores), "weight": d.floats(c * groups, o, i, j)},
        {
            "bias": d.pick(None, d.floats(o * groups)),
            "stride": stride,
            "padding": padding,
            "groups": d.as_int(groups),
            "dilation": dilation,
        },
        {"stride": WRONG_PAIRS, "padding": (*WRONG_PAIRS, 3, 9), "dilation": WRONG_PAIRS, "groups": WRONG_GROUPS},
        keywords_from=5,
    )
    if d.spoilt and not wanted and d.chance(0.3):
        end = {"output_padding": d.pick(*WRONG_PAIRS, 3, 4, (5, 0))}
    return args, options | end


@draws("pixel_shuffle")
def pixel_shuffle(d: Draw) -> Drawn:
    r = d.pick(1, 2, 2, 3)
    leading = d.pick((), (2,), (2,), (d.size(),), (2, 1), (1, 2, 2))
    return d.call(
        {
            "input": d.any_tensor(*leading, d.size(1, 2) * r * r, d.size(1, 3), d.size(1, 3)),
            "upscale_factor": d.as_int(r),
        },
        wrong={"upscale_factor": (*WRONG_INTS, 4, 5)},
    )


def pooled(d: Draw) -> Value:
    """An image to pool, with ties, NaN and infinities now and then."""
    kind = d.pick("normal", "normal", "ties", "special")
    return d.floats(*d.batch(), d.size(1, 2), d.size(3, 7), d.size(3, 7), kind=kind)


def window(d: Draw) -> tuple[Any, Any, Any]:
    """(kernel_size, stride, padding), padding at most half of the kernel, in most cases."""
    kernel = d.pair(1, 3)
    half = d.pair(0, int(np.min(kernel)) // 2)
    return kernel, d.pick(None, d.pair(1, 3)), d.pair(0, 1) if d.chance(0.1) else d.pick(0, half)


POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def may_see_nothing(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether a dilated window of a max pool may straddle the image, with all its taps in the padding."""
    given = {**dict(zip(POOL, args, strict=False)), **options}
    steps = [n for n in flat(given.get("dilation", 1)) if isinstance(n, int | np.integer)]
    image = given["input"].array.shape[-2:] if isinstance(given["input"], Value) else ()
    return 0 < min(image, default=0) < max(steps, default=1)


@draws("max_pool2d")
def max_pool2d(d: Draw) -> Drawn:
    kernel, stride, padding = window(d)
    args, options = d.call(
        {"input": pooled(d), "kernel_size": kernel},
        {
            "stride": stride,
            "padding": padding,
            "dilation": d.pick(1, 1, d.pair(1, 2)),
            "ceil_mode": d.chance(),
            "return_indices": d.chance(),
        },
        {
            "kernel_size": (*WRONG_PAIRS, 9),
            "stride": WRONG_PAIRS,
            "padding": (*WRONG_PAIRS, 2, 3),
            "dilation": (*WRONG_PAIRS, 9),
            "ceil_mode": WRONG_BOOLS,
        },
    )
    # PyTorch writes such a window's gradient outside of the image, and may crash later
    return max_pool2d(d) if may_see_nothing(args, options) else (args, options)


@draws("avg_pool2d")
def avg_pool2d(d: Draw) -> Drawn:
    kernel, stride, padding = window(d)
    return d.call(
        {"input": pooled(d), "kernel_size": kernel},
        {
            "stride": stride,
            "padding": padding,
            "ceil_mode": d.chance(),
            "count_include_pad": d.chance(),
            "divisor_override": d.pick(None, None, 1, 5, -2, np.int64(3)),
        },
        {
            "kernel_size": (*WRONG_PAIRS, 9),
            "stride": WRONG_PAIRS,
            "padding": (*WRONG_PAIRS, 2, 3),
            "ceil_mode": WRONG_BOOLS,
            "count_include_pad": WRONG_BOOLS,
            "divisor_override": WRONG_INTS,
        },
    )


@draws("adaptive_avg_pool2d")
def adaptive_avg_pool2d(d: Draw) -> Drawn:
    n = d.int(1, 6)
    size = d.pick(n, (n, d.int(1, 8)), [n, 2], (None, n), (n, None), None, (None, None), (np.int64(n), 1), 0, (0, n))
    return d.call(
        {"input": pooled(d), "output_size": size},
        wrong={"output_size": (*WRONG_PAIRS, (2,), [3], (1, 2, 3), (2, -1))},
    )


@draws("max_unpool2d")
def max_unpool2d(d: Draw) -> Drawn:
    kernel, stride = d.plain_pair(1, 3), d.pick(None, d.plain_pair(1, 3))
    padding = d.pick(0, 0, 0, d.plain_pair(0, 1))
    leading, scores = (*d.batch(), d.size(1, 2)), (d.size(1, 3), d.size(1, 3))
    image = smallest_image(scores, tuple(np.resize(kernel, 2)), kernel if stride is None else stride, padding, 1)
    pixels = max(image[0] * image[1], 1)
    plane = scores[0] * scores[1]
    channels = int(np.prod(leading))
    if pixels >= plane and d.chance(0.8):  # every pixel once, as max_pool2d without overlap would say
        flat = [d.rng.permutation(pixels)[:plane] for _ in range(channels)]
    else:
        flat = [d.rng.integers(-1 if d.chance(0.1) else 0, pixels + d.pick(0, 0, 1), plane) for _ in range(channels)]
    indices = np.array(flat, np.int64).reshape(*leading, *scores)
    size = d.pick(None, None, None, output_size(d, image, 1))
    return d.call(
        {"input": d.floats(*leading, *scores), "indices": d.value(indices), "kernel_size": kernel},
        {"stride": stride, "padding": padding, "output_size": size},
        {
            "kernel_size": (*WRONG_PAIRS, 9),
            "stride": WRONG_PAIRS,
            "padding": (*WRONG_PAIRS, 3),
            "output_size": (*WRONG_PAIRS, (2,), (1, 2, 3)),
        },
    )


@draws("interpolate")
def interpolate(d: Draw) -> Drawn:
    mode = d.pick("nearest", "bilinear")
    n, factor = d.int(1, 9), d.pick(0.5, 2.0, 1.7, 2.3, 0.8, 1.0, 2, 3)
    sizes = d.pick(n, (n, d.int(1, 9)), [n, 3], (np.int64(n), 2))
    factors = d.pick(factor, (factor, 2.3), [0.6, factor], (1, 2), np.float64(factor))
    by_size = d.chance()
    args, options = d.call(
        {"input": d.floats(*d.batch(), d.size(1, 2), d.size(1, 6), d.size(1, 6))},
        {
            "size": sizes if by_size else None,
            "scale_factor": None if by_size else factors,
            "mode": mode,
            "align_corners": None if mode == "nearest" else d.pick(None, True, False),
        },
        {
            "size": (*WRONG_PAIRS, None),
            "scale_factor": (*WRONG_FLOATS, 0, 0.0, 0.1, (2.0,), (1.0, 2.0, 3.0), (2.0, 0.0), (-1.0, 1.0), (1, None)),
            "mode": WRONG_MODES,
            "align_corners": (True, False, 0, 1, "True"),
        },
    )
    if d.spoilt and d.chance(0.15):
        options |= {"size": d.pick(None, 3), "scale_factor": d.pick(None, 2.0)}
        args = args[:1]
    return args, options


@draws("pad")
def pad(d: Draw) -> Drawn:
    ndim = d.pick(1, 2, 3, 3, 4, 4, 5)
    shape = tuple(d.size(1, 5) for _ in range(ndim))
    mode = d.pick("constant", "constant", "reflect", "replicate", "circular")
    axes = d.int(0, ndim) if mode == "constant" else d.pick(*{max(ndim - 2, 1), max(ndim - 1, 1)}, d.int(1, 3))
    low, high = d.pick((0, 2), (0, 2), (-2, 2))
    counts = [d.int(low, high) for _ in range(2 * axes)]
    wrong = (
        1, None, "12", (1,), (1, 2, 3), (1.0, 2), (1, None), (True, 1), tuple(1 for _ in range(2 * ndim + 2)),
        (-9, 0), (-2, -3), (5, 9), (0, -shape[-1]), (),
    )  # fmt: skip
    return d.call(
        {"input": d.any_tensor(*shape), "pad": d.pick(tuple(counts), counts, tuple(np.int64(n) for n in counts))},
        {"mode": mode} | ({"value": d.pick(0.0, 1, -2.5, None)} if mode == "constant" or d.chance(0.1) else {}),
        {"pad": wrong, "mode": ("same", None, 1, "", "edge"), "value": ("1", (1.0,), True, float("nan"))},
    )


@draws("crop")
def crop(d: Draw) -> Drawn:
    shape = (*d.shape(0, 2), d.size(1, 6), d.size(1, 6))
    start = d.int(0, shape[-2]), d.int(0, shape[-1])
    size = d.int(0, shape[-2] - start[0]), d.int(0, shape[-1] - start[1])
    wrong = ((1, 9), (9, 0), (1,), (1.5, 1), (None, 1), (1, "1"), None, 1)
    return d.call(
        {"x": d.floats(*shape), "start": start, "size": size},
        wrong={"start": wrong, "size": (*wrong, (-1, 1))},
        keywords_from=3,
    )


@draws("unfold")
def unfold(d: Draw) -> Drawn:
    return d.call(
        {"input": d.floats(*d.batch(), d.size(1, 2), d.size(3, 6), d.size(3, 6)), "kernel_size": d.plain_pair(1, 3)},
        {
            "dilation": d.pick(1, d.plain_pair(1, 2)),
            "padding": d.pick(0, d.plain_pair(0, 2)),
            "stride": d.plain_pair(1, 3),
        },
        {
            "kernel_size": (*WRONG_PAIRS, 9),
            "dilation": (*WRONG_PAIRS, 9),
            "padding": WRONG_PAIRS,
            "stride": WRONG_PAIRS,
        },
    )


@draws("fold")
def fold(d: Draw) -> Drawn:
    image, kernel = (d.int(4, 6), d.int(4, 6)), (d.int(1, 3), d.int(1, 3))
    dilation, padding, stride = d.pick(1, 2), d.pick(0, 1), d.int(1, 3)
    scores = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(image, kernel, strict=True)]
    blocks = max(scores[0], 0) * max(scores[1], 0) if d.chance(0.9) else d.int(0, 9)
    return d.call(
        {
            "input": d.floats(*d.batch(), d.size(1, 2) * kernel[0] * kernel[1], blocks),
            "output_size": image if image[0] != image[1] else image[0],
            "kernel_size": list(kernel),
        },
        {"dilation": dilation, "padding": padding, "stride": stride},
        {
            "output_size": (*WRONG_PAIRS, (4, 5)),
            "kernel_size": (*WRONG_PAIRS, 9),
            "dilation": WRONG_PAIRS,
            "padding": WRONG_PAIRS,
            "stride": WRONG_PAIRS,
        },
    )
