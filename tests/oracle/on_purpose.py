"""Where minifcn differs from PyTorch and is meant to; the reasons are what the functions' docstrings say."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple

import numpy as np
from arguments import FUNCTIONS, Call, Dtype, Value

ANY: Container[str] = FUNCTIONS  # every function
OURS_RAISES, THEIRS_RAISES = "minifcn alone raises", "PyTorch alone raises"
VALUES, GRADIENT, SECOND = "values", "gradient", "second-order"  # differ, though both sides have them


class Difference(NamedTuple):
    """A difference that is meant.

    Args:
        functions: the names that it concerns.
        kinds: in what way they differ, one or more of the names above.
        applies: whether a call's arguments are those that it is about.
        reason: in a sentence.
    """

    functions: Container[str]
    kinds: tuple[str, ...]
    applies: Callable[[Call], bool]
    reason: str


def with_layer(*names: str) -> tuple[str, ...]:
    """Functions, and layers without their "nn."."""
    return tuple(f"nn.{n}" if n[0].isupper() else n for n in names)


POOLS = with_layer("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d")
SOFTMAX = with_layer("softmax", "log_softmax", "Softmax", "LogSoftmax")
UNPOOL = with_layer("max_unpool2d", "MaxUnpool2d")
FOLDS = with_layer("unfold", "fold", "Unfold", "Fold")
LOSSES = with_layer("cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss")
RESIZES = with_layer("interpolate", "Upsample")


def parameters(call: Call) -> dict[str, Any]:
    """The arguments by name, or by number if they have none; a layer's are those of the constructor and of forward."""
    if not call.function.startswith("nn."):
        return {**{str(k): a for k, a in enumerate(call.args)}, **call.options}
    _, (args, options), forwards = call.args
    named = {**{f"constructor {k}": a for k, a in enumerate(args)}, **options}
    for _, (inputs, more) in forwards:
        named |= {f"forward {k}": a for k, a in enumerate(inputs)} | more
    return named


def sequences(call: Call) -> list[Any]:
    """The parameters that are tuples or lists."""
    return [p for p in parameters(call).values() if isinstance(p, tuple | list) and not isinstance(p, Value | Dtype)]


def sizes(call: Call) -> list[Any]:
    """The sizes that are given to a method one by one, or that a layer is built with."""
    if call.function in ("nn.Conv2d", "nn.ConvTranspose2d", "nn.Linear", "nn.BatchNorm2d"):
        names = ("constructor 0", "constructor 1", "constructor 2", "in_channels", "out_channels", "kernel_size")
        names += ("in_features", "out_features")
        return [[v for k, v in parameters(call).items() if k in names]]
    named = ("Tensor.reshape", "Tensor.view", "Tensor.expand", "Tensor.permute")
    return [call.args[1:]] if call.function in named else []


def numbers(call: Call) -> list[Any]:
    """The parameters that are no tensors, and what is inside of pairs."""
    return [
        x
        for p in parameters(call).values()
        if not isinstance(p, Value)
        for x in (p if isinstance(p, tuple | list) else (p,))
    ]


def input_of(call: Call) -> np.ndarray:
    """The first tensor; of a layer, the first that forward is given."""
    found = parameters(call)
    value = found["forward 0"] if call.function.startswith("nn.") else next(iter(found.values()))
    return value.array if isinstance(value, Value) else np.zeros(())


def has_dtype(call: Call, *kinds: str) -> bool:
    return any(v.array.dtype.kind in kinds for v in call.values())


def is_narrow_or_complex(call: Call) -> bool:
    cast = any(isinstance(a, Dtype) and a.name in ("float16", "complex64") for a in call.arguments())
    return cast or any(v.array.dtype in (np.float16, np.complex64) for v in call.values())


def has_fault(call: Call) -> bool:
    """Whether a tensor is empty, and one is no float or the dtypes differ, or a parameter is not positive."""
    dtypes = {v.array.dtype for v in call.values()}
    wrong = has_dtype(call, "i", "u", "b") or len(dtypes) > 1
    negative = any(isinstance(x, int | float) and x <= 0 for x in numbers(call))
    return any(v.array.size == 0 for v in call.values()) and (wrong or negative)


def weights_cancel(call: Call) -> bool:
    """Whether the class weights of all labels that count are 0, and some count."""
    found = parameters(call)
    target = found.get("target", found.get("forward 1", found.get("1")))
    weight = found.get("weight", found.get("2"))
    if not isinstance(weight, Value):
        return False
    labels = target.array[target.array != found.get("ignore_index", -100)]
    return labels.size > 0 and not weight.array[labels].any()


def repeated_index(call: Call) -> bool:
    """Whether max_unpool2d is given an index twice in a plane."""
    indices = next(v.array for v in call.values() if v.array.dtype.kind == "i")
    planes = indices.reshape(-1, int(np.prod(indices.shape[-2:]))) if indices.size else np.zeros((0, 0))
    return any(len(np.unique(plane)) < len(plane) for plane in planes)


def zero_power(call: Call) -> bool:
    """Whether a base or an exponent is 0."""
    return any((v.array == 0).any() for v in call.values()) or any(x == 0 for x in numbers(call))


def two_ellipses(call: Call) -> bool:
    return sum(p is Ellipsis for p in index_parts(call)) > 1


def reaches_nothing(call: Call) -> bool:
    """Whether an index picks no element, numbers out of range left out of account."""
    at = [
        p.array if isinstance(p, Value) else np.array(p) if isinstance(p, list | tuple) else p
        for p in index_parts(call)
    ]
    inside = tuple(np.zeros_like(p) if isinstance(p, np.ndarray) and p.dtype.kind == "i" else p for p in at)
    try:
        return np.zeros(call.args[0].array.shape)[inside].size == 0
    except IndexError:
        return 0 in call.args[0].array.shape  # along which even 0 is out of range


def index_parts(call: Call) -> tuple[Any, ...]:
    at = call.args[1]
    return at if type(at) is tuple else (at,)


def has_no_channels(call: Call) -> bool:
    """Whether an image or a filter has an empty channel axis, or a layer is built for none."""
    empty = any(0 in v.array.shape[:2] for v in call.values())
    return empty or any(0 in given for given in sizes(call))


def named(call: Call, *names: str) -> dict[str, Any]:
    """The arguments by the names that a function, or a layer's constructor, has for them."""
    found = parameters(call)
    prefix = "constructor " if call.function.startswith("nn.") else ""
    return {n: found[f"{prefix}{k}"] for k, n in enumerate(names) if f"{prefix}{k}" in found} | found


def as_pair(value: Any) -> tuple[int, ...]:
    """A size for each of two axes; nothing for what is no size."""
    parts = tuple(value) if type(value) in (tuple, list) else (value,)
    if not all(isinstance(p, int | np.integer) for p in parts) or not 1 <= len(parts) <= 2:
        return ()
    return tuple(int(p) for p in parts) * (2 // len(parts))


def is_empty(value: Any) -> bool:
    return type(value) in (tuple, list) and len(value) == 0


def conv_transpose(call: Call) -> dict[str, Any]:
    """The arguments of a transposed convolution, function or layer, by name."""
    if call.function.startswith("nn."):
        names = ("in", "out", "kernel", "stride", "padding", "output_padding", "groups", "bias", "dilation")
        found = named(call, *names)
        return {"output_size": found.get("forward 1"), **found, "kernel": found.get("kernel_size", found.get("kernel"))}
    found = named(call, "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    weight = found.get("weight")
    return {**found, "kernel": weight.array.shape[2:] if isinstance(weight, Value) else None}


def without_pixels(call: Call) -> bool:
    """Whether the result of a transposed convolution or an unpooling has no rows or no columns."""
    if call.function in UNPOOL:
        layer = call.function.startswith("nn.")
        found = named(call, *(() if layer else ("input", "indices")), "kernel", "stride", "padding", "output_size")
        kernel = as_pair(found.get("kernel_size", found.get("kernel")))
        given = found.get("stride")
        stride = kernel if given is None or is_empty(given) else as_pair(given)
        dilation, extra = (1, 1), (0, 0)
        wanted = found.get("forward 2", found.get("output_size"))
    else:
        found = conv_transpose(call)
        kernel, stride = as_pair(found["kernel"]), as_pair(found.get("stride", 1))
        dilation, extra = as_pair(found.get("dilation", 1)), as_pair(found.get("output_padding", 0))
        wanted = found.get("output_size")
    if type(wanted) in (tuple, list) and 0 in wanted[-2:]:
        return True
    padding = as_pair(found.get("padding", 0))
    if not all((kernel, stride, padding, dilation, extra)) or 0 in input_of(call).shape[:2]:
        return 0 in input_of(call).shape[:2]
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + e
        for n, s, p, d, k, e in zip(input_of(call).shape[-2:], stride, padding, dilation, kernel, extra, strict=False)
    ]
    return min(sizes, default=1) < 1


def unused_output_padding(call: Call) -> bool:
    """Whether output_padding is given where nothing depends on it: beside output_size, or for no images."""
    found = conv_transpose(call)
    given = as_pair(found.get("output_padding", 0))
    return given != (0, 0) and (found.get("output_size") is not None or input_of(call).size == 0)


def unused_pooling_parameter(call: Call) -> bool:
    """Whether max_unpool2d is given a kernel or stride below 1, a flag or three values for a size."""
    layer = call.function.startswith("nn.")
    found = named(call, *(() if layer else ("input", "indices")), "kernel_size", "stride", "padding")
    given = [found[n] for n in ("kernel_size", "stride", "padding") if found.get(n) is not None]
    parts = [x for p in given for x in (p if type(p) in (tuple, list) else [p])]
    small = [x for n in ("kernel_size", "stride") for x in as_pair(found.get(n)) if x < 1]
    return (
        bool(small)
        or any(isinstance(x, bool) or not isinstance(x, int | np.integer) or x < 0 for x in parts)
        or any(type(p) in (tuple, list) and len(p) > 2 for p in given)
    )


def counted(call: Call) -> float:
    """How many values a variance is of."""
    shape = input_of(call).shape
    dim = call.options.get("dim", call.args[1] if len(call.args) > 1 else None)
    axes = dim if type(dim) in (tuple, list) else [dim]
    if dim is None or is_empty(dim) or not shape:
        return float(np.prod(shape))
    try:
        return float(np.prod([shape[a] for a in axes]))
    except (TypeError, IndexError):
        return np.inf


def less_than_counted(call: Call) -> bool:
    """Whether a variance is asked to take its whole count, or more, off the count."""
    correction = call.options.get("correction", 1)
    if not isinstance(correction, int | float):
        correction = 1
    return counted(call) - correction <= 0


def pads_oddly(call: Call) -> bool:
    """Whether a padding with the image's own rows leaves nothing, or is a circular one that crops too."""
    found = named(call, "input", "pad", "mode")
    counts = [x for x in found["pad"] if isinstance(x, int | np.integer)] if type(found["pad"]) in (tuple, list) else []
    if found.get("mode", "constant") == "constant":
        return False
    shape = input_of(call).shape
    sizes = [n + counts[2 * k] + counts[2 * k + 1] for k, n in enumerate(shape[::-1]) if len(counts) > 2 * k + 1]
    return 0 in shape or 0 in sizes or (found["mode"] == "circular" and min(counts, default=0) < 0)


ON_PURPOSE: list[Difference] = [
    Difference(
        ANY,
        (OURS_RAISES, THEIRS_RAISES, VALUES, GRADIENT, SECOND),
        is_narrow_or_complex,
        "Computed with are float32, float64, integers and booleans; float16 and complex are refused or only held.",
    ),
    Difference(
        ANY,
        (OURS_RAISES,),
        lambda call: any(isinstance(x, bool) for s in (*sequences(call), *sizes(call)) for x in s),
        "True and False are no sizes; PyTorch refuses them too, but looks at the first of several only.",
    ),
    Difference(
        (*FOLDS, *POOLS, *RESIZES, *with_layer("dropout", "dropout2d", "Dropout", "Dropout2d")),
        (OURS_RAISES,),
        lambda call: input_of(call).dtype.kind in "iub",
        "Images are floats; PyTorch has some of these functions for integers as well.",
    ),
    Difference(
        UNPOOL,
        (VALUES, GRADIENT, SECOND),
        repeated_index,
        "Of values with the same index one is kept, and it alone has a gradient; PyTorch gives it to all of them.",
    ),
    Difference(
        (*UNPOOL, *FOLDS),
        (THEIRS_RAISES,),
        lambda call: any(len(s) < 2 for s in sequences(call)) or any(isinstance(x, np.integer) for x in numbers(call)),
        "A one-element tuple holds for both axes and NumPy's integers are integers, as in all functions.",
    ),
    Difference(
        with_layer("conv_transpose2d", "ConvTranspose2d"),
        (THEIRS_RAISES,),
        lambda call: "output_size" in str(call) or "forward 1" in parameters(call),
        "With output_size, one number or a one-element tuple holds for both axes as it does without.",
    ),
    Difference(
        ("conv2d", "conv_transpose2d"),
        (OURS_RAISES,),
        lambda call: len({v.array.dtype for v in call.values()}) > 1,
        "Input, weight and bias have one dtype; PyTorch looks at the bias's in some of its implementations only.",
    ),
    Difference(
        ("adaptive_avg_pool2d", "nn.AdaptiveAvgPool2d"),
        (THEIRS_RAISES,),
        lambda call: any(p is None for p in parameters(call).values()),
        "output_size=None keeps both sizes, as (None, None) does.",
    ),
    Difference(
        with_layer("dropout2d", "Dropout2d"),
        (OURS_RAISES,),
        lambda call: input_of(call).ndim not in (3, 4),
        "Whole channels of (N,C,H,W) or (C,H,W) are dropped; PyTorch warns of other axes and is to refuse them.",
    ),
    Difference(
        (
            *SOFTMAX,
            "matmul",
            "Tensor.@",
            *with_layer("local_response_norm", "LocalResponseNorm", "batch_norm", "BatchNorm2d"),
        ),
        (OURS_RAISES,),
        lambda call: has_fault(call) or ("atch" in call.function and input_of(call).size == 0),
        "Wrong arguments are refused for empty tensors too.",
    ),
    Difference(
        ("batch_norm", "nn.BatchNorm2d"),
        (THEIRS_RAISES,),
        lambda call: any(0 in v.array.shape[:2] for v in call.values()),
        "Without channels the result is empty; PyTorch fails with an index error.",
    ),
    Difference(
        ("nn.BatchNorm2d",),
        (OURS_RAISES,),
        lambda call: not isinstance(first := next(iter(parameters(call).values())), int) or first < 1,
        "num_features is checked even in a layer without parameters and statistics.",
    ),
    Difference(
        ("nn.BatchNorm2d",),
        (GRADIENT, SECOND),
        lambda call: any(isinstance(x, float) and x < 0 for x in numbers(call)),
        "A negative momentum may make a running variance negative, and then everything is NaN.",
    ),
    Difference(
        LOSSES,
        (GRADIENT, SECOND),
        weights_cancel,
        "The mean over labels of weight 0 is NaN, without PyTorch's NaN gradients, which would spoil every parameter.",
    ),
    Difference(
        LOSSES,
        (OURS_RAISES,),
        lambda call: (
            any(v.array.shape in ((), (1,)) for v in call.values())
            or any(0 in v.array.shape[:2] for v in call.values())
            or any(v.array.ndim != 1 for v in list(call.values())[2:])
        ),
        "Target, weight and input fit each other exactly, and there are classes; PyTorch lets some others pass.",
    ),
    Difference(
        RESIZES,
        (OURS_RAISES,),
        lambda call: input_of(call).ndim == 5 or any(p in ("area", "linear") for p in parameters(call).values()),
        "Images only, by the nearest pixel or bilinearly.",
    ),
    Difference(
        ("nn.Upsample",),
        (THEIRS_RAISES,),
        lambda call: any(isinstance(s, list) for s in sequences(call)),
        "Factors may be a list, as in the function.",
    ),
    Difference(
        ("nn.Upsample",),
        (OURS_RAISES,),
        lambda call: parameters(call).get("scale_factor") in (0, "1"),
        "scale_factor is a number; PyTorch's layer converts strings and takes 0 for None.",
    ),
    Difference(
        SOFTMAX,
        (OURS_RAISES,),
        lambda call: any(p is None for p in parameters(call).values()),
        "dim is needed; PyTorch's implicit choice is deprecated.",
    ),
    Difference(
        ("where",),
        (OURS_RAISES,),
        lambda call: has_dtype(call, "u"),
        "The condition is boolean; PyTorch's uint8 conditions are deprecated.",
    ),
    Difference(
        ("Tensor.*",),
        (OURS_RAISES,),
        lambda call: any(isinstance(a, str | list) for a in call.args),
        "PyTorch's integer scalars repeat a string or a list as Python's integers do.",
    ),
    Difference(
        ("Tensor.**",),
        (SECOND,),
        zero_power,
        "At exponent 0 the mixed derivative of x**y is 1/x; PyTorch's is 0, and at base 0 its second ones are NaN.",
    ),
    Difference(
        ("Tensor.**",),
        (OURS_RAISES,),
        lambda call: not has_dtype(call, "f") and np.min(getattr(call.args[1], "array", call.args[1]), initial=0) < 0,
        "Integers to negative powers are refused; PyTorch does so for numbers only, and gives 0 or ±1 for tensors.",
    ),
    Difference(
        ("crop",),
        (THEIRS_RAISES,),
        lambda call: (
            any(len(s) == 1 for s in sequences(call)) or any(type(p) is int for p in parameters(call).values())
        ),
        "PyTorch has no crop and is asked to narrow two axes; one number holds for both.",
    ),
    Difference(
        ("pad", "nn.ZeroPad2d"),
        (THEIRS_RAISES,),
        lambda call: has_dtype(call, "i", "u", "b"),
        "Every mode pads every dtype.",
    ),
    Difference(
        ("Tensor.expand",),
        (OURS_RAISES,),
        lambda call: any(isinstance(x, int) and x < 0 for x in numbers(call)),
        "A new axis of size −1 or less is refused; PyTorch makes one where another axis is empty.",
    ),
    Difference(
        ("Tensor[]",),
        (THEIRS_RAISES,),
        lambda call: any(isinstance(p, slice) and isinstance(p.step, int) and p.step < 0 for p in index_parts(call)),
        "Slices may run backwards, as in NumPy.",
    ),
    Difference(
        ("Tensor[]",),
        (OURS_RAISES,),
        lambda call: any(isinstance(p, list) and p and isinstance(p[0], float) for p in index_parts(call)),
        "Indices are integers; PyTorch cuts off the fractions of a list's floats.",
    ),
    Difference(
        ("Tensor[]",),
        (OURS_RAISES,),
        lambda call: any(isinstance(p, bool | np.bool_) for p in index_parts(call)),
        "A single True or False is no index; PyTorch makes a new axis of it.",
    ),
    Difference(
        ("Tensor[]",),
        (OURS_RAISES,),
        reaches_nothing,
        "An index out of range is refused even where the result has no elements; PyTorch does not look at it then.",
    ),
    Difference(
        ("Tensor[]",),
        (OURS_RAISES,),
        two_ellipses,
        "An index has one … at most, as in NumPy.",
    ),
    Difference(
        ("Tensor.sum", "Tensor.mean"),
        (THEIRS_RAISES,),
        lambda call: (
            isinstance(call.options.get("keepdim"), bool) and len(call.args) == 1 and "dim" not in call.options
        ),
        "keepdim may be given without dim.",
    ),
    Difference(
        ("Tensor.squeeze", "Tensor.max", "Tensor.min"),
        (THEIRS_RAISES,),
        lambda call: None in call.args[1:] or call.options.get("dim", 0) is None,
        "dim=None is the default and may be said: all axes.",
    ),
    Difference(
        ("Tensor.to",),
        (OURS_RAISES,),
        lambda call: any(isinstance(p, float) or p is None for p in parameters(call).values()),
        "A dtype or device is needed; PyTorch takes a number for a tensor with that dtype, and None for no change.",
    ),
    Difference(
        with_layer("conv2d", "Conv2d"),
        (OURS_RAISES,),
        has_no_channels,
        "A convolution has channels; of none PyTorch makes a tensor without channels, whatever the filter says.",
    ),
    Difference(
        ("adaptive_avg_pool2d", "nn.AdaptiveAvgPool2d"),
        (OURS_RAISES,),
        lambda call: input_of(call).ndim not in (3, 4) or 0 in input_of(call).shape,
        "An image has pixels and three or four axes; PyTorch takes the mean of anything where the output is 1×1.",
    ),
    Difference(
        ("Tensor.**",),
        (OURS_RAISES,),
        lambda call: has_dtype(call, "b"),
        "Booleans have no powers; PyTorch refuses tensors of them and takes True and False.",
    ),
    Difference(
        ("cat",),
        (OURS_RAISES,),
        lambda call: all(v.array.shape == (0,) for v in call.values()),
        "dim is checked for vectors of no elements too.",
    ),
    Difference(
        with_layer("local_response_norm", "LocalResponseNorm"),
        (OURS_RAISES,),
        lambda call: input_of(call).dtype.kind in "iub",
        "Images are floats.",
    ),
    Difference(
        LOSSES,
        (THEIRS_RAISES,),
        lambda call: any(v.array.dtype in (np.int32, np.uint8) for v in call.values()),
        "Labels may have any integer dtype; PyTorch takes int64, and uint8 in some cases.",
    ),
    Difference(
        ("linear",),
        (THEIRS_RAISES,),
        lambda call: (
            [v.array.ndim for v in call.values()[1:]] == [1, 0]
            and call.values()[0].array.shape[-1:] == call.values()[1].array.shape
            and len({v.array.dtype for v in call.values()}) == 1
        ),
        "A weight (C,) takes a scalar bias; PyTorch takes it for inputs of some numbers of axes.",
    ),
    Difference(
        UNPOOL,
        (OURS_RAISES,),
        unused_pooling_parameter,
        "Kernel, stride and padding are checked even where the output's size does not depend on them.",
    ),
    Difference(
        with_layer("conv_transpose2d", "ConvTranspose2d"),
        (OURS_RAISES,),
        unused_output_padding,
        "output_padding is checked for empty batches too, and where output_size takes its place.",
    ),
    Difference(
        with_layer("conv_transpose2d", "max_unpool2d", "ConvTranspose2d", "MaxUnpool2d"),
        (OURS_RAISES,),
        without_pixels,
        "An output has pixels; PyTorch returns some without, and refuses others.",
    ),
    Difference(
        ("Tensor.var",),
        (VALUES, GRADIENT, SECOND),
        less_than_counted,
        "A count of 0 or less gives ∞ or NaN; PyTorch's gradient of it depends on whether dim is given.",
    ),
    Difference(
        ("Tensor.var",),
        (GRADIENT, SECOND),
        lambda call: any(len(s) == 0 for s in sequences(call)) or not np.isfinite(input_of(call)).all(),
        "No axes mean all of them, which PyTorch's gradient counts as none; of ∞ the gradient is NaN.",
    ),
    Difference(
        ("Tensor.**",),
        (GRADIENT, SECOND),
        lambda call: (
            not isinstance(call.args[1], Value)
            and call.args[1] in (0.5, 0)
            and bool(((input_of(call) == 0) | np.isinf(input_of(call))).any())
        ),
        "The slope of x**0.5 at −0 and −∞ and of x**0 there is a limit; PyTorch's is NaN.",
    ),
    Difference(
        ("einsum",),
        (OURS_RAISES, THEIRS_RAISES),
        lambda call: len({v.array.dtype for v in call.values()}) > 1 or has_dtype(call, "i", "u", "b"),
        "The widest float counts, integers beside it included; PyTorch's products take some mixtures and not others.",
    ),
    Difference(
        ("Tensor.clip", "Tensor.clamp"),
        (OURS_RAISES,),
        lambda call: has_dtype(call, "u") and any(isinstance(x, int) and x < 0 for x in numbers(call)),
        "A bound that the dtype cannot hold is refused; PyTorch refuses 300 for uint8, and takes −1 for 255.",
    ),
    Difference(
        ("einsum",),
        (VALUES,),
        lambda call: len({v.array.dtype for v in call.values()}) > 1 and any(v.array.size == 0 for v in call.values()),
        "The widest float counts for empty products too.",
    ),
    Difference(
        ("pad",),
        (OURS_RAISES,),
        pads_oddly,
        "Beside a crop, what is padded comes from what is left; PyTorch reads what was cropped, or allows size 0.",
    ),
]
