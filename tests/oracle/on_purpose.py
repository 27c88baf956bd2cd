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


def paddings(call: Call) -> list[int]:
    """The rows and columns of padding, wherever they stand."""
    found = parameters(call)
    places = {"conv_transpose2d": "4", "nn.ConvTranspose2d": "constructor 4"}
    places |= {"max_unpool2d": "4", "nn.MaxUnpool2d": "constructor 2"}
    given = [found[k] for k in ("padding", places[call.function]) if k in found]
    return [x for p in given for x in (p if type(p) in (tuple, list) else [p]) if isinstance(x, int | np.integer)]


def less_than_counted(call: Call) -> bool:
    """Whether a variance may be asked to take its whole count, or more, off the count, or is that of an infinity."""
    correction = call.options.get("correction", 1)
    return correction is None or correction >= 1 or not np.isfinite(input_of(call)).all()


def crops(call: Call) -> bool:
    return any(isinstance(x, int | np.integer) and x < 0 for s in sequences(call) for x in s)


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
        UNPOOL,
        (OURS_RAISES,),
        lambda call: (
            any(isinstance(x, bool) or (isinstance(x, int) and x < 1) for x in numbers(call))
            or any(len(s) > 2 for s in sequences(call))
        ),
        "Kernel, stride and padding are checked even where the output's size does not depend on them.",
    ),
    Difference(
        with_layer("conv_transpose2d", "ConvTranspose2d"),
        (THEIRS_RAISES,),
        lambda call: "output_size" in str(call) or "forward 1" in parameters(call),
        "With output_size, one number or a one-element tuple holds for both axes as it does without.",
    ),
    Difference(
        with_layer("conv_transpose2d", "ConvTranspose2d"),
        (OURS_RAISES,),
        lambda call: input_of(call).size == 0 or any(n in parameters(call) for n in ("forward 1", "output_size")),
        "output_padding is checked for empty batches too, and where output_size takes its place.",
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
        (THEIRS_RAISES,),
        lambda call: has_dtype(call, "i", "u"),
        "Labels may have any integer dtype.",
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
        (OURS_RAISES, THEIRS_RAISES, VALUES, GRADIENT, SECOND),
        lambda call: input_of(call).ndim == 3,
        "An input of three axes is an image (C,H,W), as for all functions of images; PyTorch takes it for (N,C,L).",
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
        ("Tensor.var",),
        (GRADIENT, SECOND),
        lambda call: any(len(s) == 0 for s in sequences(call)),
        "No axes mean all of them; PyTorch's variance does so too, but its gradient divides by the count of none.",
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
        ("einsum",),
        (OURS_RAISES, THEIRS_RAISES, VALUES),
        lambda call: len({v.array.dtype for v in call.values()}) > 1 or has_dtype(call, "i", "u", "b"),
        "The widest float counts, integers beside it included; PyTorch's products take some mixtures and not others.",
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
        with_layer("conv_transpose2d", "max_unpool2d", "ConvTranspose2d", "MaxUnpool2d"),
        (OURS_RAISES,),
        lambda call: any(x > 0 for x in paddings(call)) or 0 in input_of(call).shape[:2],
        "An output has pixels; PyTorch returns some without, and refuses others.",
    ),
    Difference(
        ("adaptive_avg_pool2d", "nn.AdaptiveAvgPool2d"),
        (OURS_RAISES,),
        lambda call: input_of(call).ndim not in (3, 4) or 0 in input_of(call).shape,
        "An image has pixels and three or four axes; PyTorch takes the mean of anything where the output is 1×1.",
    ),
    Difference(
        ("Tensor.var",),
        (VALUES, GRADIENT, SECOND),
        less_than_counted,
        "A count of 0 or less gives ∞ or NaN; PyTorch's gradient of it depends on whether dim is given.",
    ),
    Difference(
        ("Tensor.**",),
        (GRADIENT, SECOND),
        lambda call: not isinstance(call.args[1], Value) and call.args[1] in (0.5, 0),
        "The slope of x**0.5 at −0 and −∞ and of x**0 there is a limit; PyTorch's is NaN.",
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
        ("linear", "nn.Linear"),
        (THEIRS_RAISES,),
        lambda call: any(v.array.ndim == 1 for v in call.values()),
        "A weight (C,) takes a scalar bias; PyTorch takes it for inputs of some numbers of axes.",
    ),
    Difference(
        ("pad",),
        (OURS_RAISES,),
        lambda call: crops(call) or 0 in input_of(call).shape,
        "Beside a crop, what is padded comes from what is left; PyTorch reads what was cropped, or allows size 0.",
    ),
]
