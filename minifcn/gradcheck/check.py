"""check_grad: a derivative against differences.

**Differences.** Take a function y = f(x), a random cotangent g of y's shape and a random direction d of x's, ‖d‖ = 1.
The gradient of ⟨f, g⟩ is the vector whose product with every d is the slope along d, so with φ(t) = ⟨f(x + t·d), g⟩

    ⟨gradient, d⟩ = φ'(0) = (φ(h) − φ(−h)) / 2h + O(h²)

One random direction sees every coordinate, one wrong one of n with a weight of 1/√n: in an array of 10⁵ an error of a
thousandth of one entry may stay below the tolerance, in one of 100 it hardly can. So check small arrays, or along
several directions.
A rounding ε of φ becomes ε/h, so h = 1e-5 times the size of x (and at least 1e-5) leaves about 1e-10 of truncation and
1e-11 of rounding. Where f varies over a shorter range than that, give a smaller `step`.

**Order 2** is the same comparison for the function that returns the gradient, (x, g) ↦ ∂⟨f(x), g⟩/∂x, as one vector.
Order 3 takes the gradient of that, and so on: the library is closed under differentiation, and so is the check. The
differences are always taken of a gradient computed as without create_graph, the analytic side is its derivative as
with create_graph. Where a primitive has a fused gradient for the one and a composed one for the other, they are thereby
compared too.

**Kinks.** A ReLU has no slope at 0. Its gradient is right there all the same if it is that of one side, or between the
two (a subgradient). Where a comparison fails, or passes between differences forwards and backwards that stay apart (|x|
at 0 has the gradient 0 and the central difference 0),

1. smaller steps are tried: a kink *near* the point lies within the large step and not within a small one. A gradient
   that is right at one step is right;
2. halving the direction's coordinates again and again, and comparing along each half, finds those that disagree;
3. along each of these the slopes on either side are taken, s₊ from the values at h, 2h and 3h, and s₋ from those at −h,
   −2h and −3h. A parabola through three values, extended to 0, has

       s₊ = (−5 f(h) + 8 f(2h) − 3 f(3h)) / 2h + O(h²)

   At a smooth point s₊ − s₋ shrinks 10⁴-fold from h to h/100. At a kink it stays. Where f jumps, as the derivative of
   a ReLU does, f(h) − f(0) stays, but s₊ and s₋ are those of the two pieces, as f(0) does not enter;
4. if neither stays, or if the gradient is not between s₋ and s₊, it is wrong. This is asked of every element of f that
   has a kink, one at a time: of the sum over several the hull could be narrower than its parts, or wider. The other
   elements, and the direction without the kinked coordinates, must pass the ordinary comparison;
5. an element that bends the same way along all of its kinked coordinates, such as a maximum of equal values, is convex
   (or concave) there, and a subgradient is one along every direction: the gradient must lie between s₋ and s₊ along
   several that move these coordinates together. So a maximum that gives each of two equal values the whole gradient is
   found out, though each by itself may have it. (|x| − |y| bends both ways, and is asked coordinate by coordinate.)

A kink closer than about 1e-7 cannot be told from one at the point.

**float32.** Differences of float32 values would measure rounding, ε/h = 0.01. Only the gradient is computed in float32;
the differences are float64's, of the same function at the same (rounded) point. A float32 sum of n terms is off by
about √n·6e-8 of their size, and a gradient went through some hundred such sums: 1e-4 leaves room for that, and hardly
for a mistake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minifcn.array import FLOATS, Array, is_array, module_of, to_device
from minifcn.autograd import Tensor, grad
from minifcn.functional import cat

SINGLE, DOUBLE = FLOATS
TOLERANCE = {SINGLE: 1e-4, DOUBLE: 1e-6}
STEPS = (1e-5, 1e-6, 1e-7, 3e-8)  # relative to the size of the argument
KINK_STEPS = STEPS[:3]
ROUNDINGS = 10  # how many times the last digit of the values that went into it a result may be off
BEND = 1e-3  # by which part of the slope differences forwards and backwards may differ before a kink is suspected
PATIENCE = 4  # seconds that a search for kinks, or for what is wrong, may take
DIRECTIONS_TOGETHER = 4  # random ones, in which kinked coordinates are moved together
COORDINATES = 200  # how many are looked at for the worst

Function = Callable[..., Tensor]
Coordinate = tuple[int, ...]


class GradientError(AssertionError):
    """A derivative that differs from its numerical or adjoint counterpart."""


@dataclass(frozen=True)
class Check:
    """One comparison: the derivative by argument `argument` at `order`, along one random direction.

    At order 2 and beyond, the cotangents of the orders before are further arguments.
    """

    order: int
    argument: int
    analytic: float
    numeric: float
    error: float  # relative
    verdict: str = "ok"  # or "kink": right, with `kinks` coordinates at which there is no slope; or "FAIL"
    kinks: int = 0
    worst: tuple[Coordinate, float, float] | None = None  # (coordinate, analytic, numeric) of a failure
    fault: str = ""  # what is wrong, in words


def check_grad(
    f: Function,
    inputs: Sequence[Tensor | Array],
    order: int = 2,
    tolerance: float | None = None,
    directions: int = 1,
    seed: int = 0,
    dtype: DTypeLike = np.float64,
    device: str | None = None,
    step: float | None = None,
) -> list[Check]:
    """Compare the gradient of f, and the gradient's gradient, with central differences.

    For a random cotangent g and a random direction d in one argument, ⟨gradient(g), d⟩ must equal the slope of
    ⟨f(…), g⟩ along d. At order 2 the same is asked of the gradient itself, as a function of the arguments and of g.
    At a kink (ReLU at 0, a tie of a maximum) the gradient must lie between the slopes on either side.
    help(minifcn.gradcheck.check) derives all this.

    Args:
        f: function of Tensors to one Tensor; it is called many times, with float64 too, and must return the same values
            each time. What it creates itself should have the dtype and device of its arguments.
        inputs: the arguments, float64; for dtype=float32 either kind, rounded to float32.
        order: 1 for the gradient, 2 for the gradient's gradient as well, and so on.
        tolerance: largest relative error, |analytic − numeric| / (|analytic| + |numeric| + what rounding explains).
            1e-6 by default, 1e-4 for float32.
        directions: random directions for each argument, at least 1. An array of more than some thousand entries may
            hide a small error in one of them from one direction.
        seed: of cotangents and directions.
        dtype: in which the gradient is computed. The differences are of float64.
        device: where to compute, "cpu" or "cuda"; by default where each input is.
        step: the largest step of the differences (smaller ones are tried too); by default 1e-5 times the largest entry
            of the argument, and at least 1e-5.

    Returns:
        The comparisons that were made, with the verdict "ok" or "kink".

    Raises:
        GradientError: naming order, argument, both values, and the worst coordinate of the argument; or a value that
            is not finite; or more kinks than can be looked at in some seconds.
        TypeError: an f that cannot be called or does not return one Tensor of its arguments' dtype, inputs that are no
            list of float64 arrays, or another dtype.
        ValueError: an order or directions below 1, a tolerance or step that is not positive, nothing to compare, or an
            f that returns other values when it is called again.
        RuntimeError: device="cuda" where no GPU can be used.

    >>> checks = check_grad(lambda x: (x * x).sum(), [np.array([1.0, 2.0])])
    >>> len(checks), max(c.error for c in checks) < 1e-6
    (3, True)
    >>> check_grad(lambda x: x.relu(), [np.array([1.0, 0.0, -2.0])], order=1)[0].verdict
    'kink'
    >>> check_grad(lambda x: x * x.detach(), [np.array([1.0, 2.0])])
    Traceback (most recent call last):
    minifcn.gradcheck.check.GradientError: check_grad: order 1, argument 0 of shape (2,): the gradient gives ...
    """
    found = []
    for check in iter_checks(f, inputs, range(1, _order(order) + 1), tolerance, directions, seed, dtype, device, step):
        if check.verdict == "FAIL":
            raise GradientError(f"check_grad: {check.fault}")
        found.append(check)
    return found


def _order(order: int) -> int:
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"check_grad: order is {order!r}; a whole number, at least 1, is needed")
    return order


def iter_checks(
    f: Function,
    inputs: Sequence[Tensor | Array],
    orders: Iterable[int],
    tolerance: float | None = None,
    directions: int = 1,
    seed: int = 0,
    dtype: DTypeLike = np.float64,
    device: str | None = None,
    step: float | None = None,
) -> Iterator[Check]:
    """check_grad's comparisons at the orders given, as they are made, failures among them.

    Args, Raises: as check_grad, but no GradientError.
    """
    kind = _dtype(dtype)
    _check_settings(f, inputs, tolerance, directions, seed, step)
    given = [x.data if isinstance(x, Tensor) else x for x in inputs]
    if any(x.dtype != DOUBLE and not (x.dtype == kind == SINGLE) for x in given):
        raise TypeError(
            f"check_grad: inputs are {[str(x.dtype) for x in given]}; float64 is needed for differences, also where "
            "dtype=float32 asks for a gradient in float32"
        )
    if device is not None:
        given = [to_device(x, device) for x in given]
    rng = np.random.default_rng(seed)
    arguments = [_Argument.of(x, kind, step) for x in given]
    recorded = plain = f
    wanted = set(orders)
    for order in range(1, max(wanted, default=0) + 1):
        point = _Point(recorded, plain, arguments, kind, rng, TOLERANCE[kind] if tolerance is None else tolerance)
        if order in wanted:
            yield from point.checks(order, directions)
        if not point.finite:
            return  # its derivatives are not finite either
        arguments = [*arguments, point.cotangent]
        recorded, plain = _derivative(recorded, create_graph=True), _derivative(recorded, create_graph=False)


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind not in FLOATS or kind is None:
        raise TypeError(f"check_grad: dtype is {kind or repr(dtype)}; float32 or float64 is needed")
    return kind


def _check_settings(
    f: object, inputs: object, tolerance: object, directions: object, seed: object, step: object
) -> None:
    """Raises TypeError or ValueError, in one sentence, for what check_grad cannot work with."""
    if not callable(f):
        raise TypeError(f"check_grad: f is a {type(f).__name__}; a function of Tensors is needed")
    if not isinstance(inputs, list | tuple):
        raise TypeError(f"check_grad: inputs is a {type(inputs).__name__}; a list of arrays is needed")
    for k, x in enumerate(inputs):
        if not (isinstance(x, Tensor) or is_array(x)):
            raise TypeError(f"check_grad: input {k} is a {type(x).__name__}; an array or a Tensor is needed")
    if not any(x.size for x in inputs):
        raise ValueError("check_grad: no input has an element; there is nothing to compare")
    for name, value in (("directions", directions), ("seed", seed)):
        if not isinstance(value, int | np.integer) or value < (name == "directions"):
            raise ValueError(
                f"check_grad: {name} is {value!r:.40}; a whole number is needed, and at least one direction"
            )
    for name, limit in (("tolerance", tolerance), ("step", step)):
        if limit is not None and not (isinstance(limit, int | float) and limit > 0):
            raise ValueError(f"check_grad: {name} is {limit!r:.40}; a number above 0 is needed")


def _derivative(f: Function, create_graph: bool) -> Function:
    """(*xs, g) ↦ the gradient of ⟨f(*xs), g⟩ by all xs, as one vector."""

    def gradient(*arguments: Tensor) -> Tensor:
        *xs, g = arguments
        parts = grad(f(*xs), xs, g, create_graph=create_graph, allow_unused=True)
        return cat([part.reshape(-1).to(parts[0].dtype) for part in parts])

    return gradient


@dataclass(frozen=True)
class _Argument:
    """The values of one argument in float64, on the CPU, and how the function wants them."""

    values: Array
    dtype: np.dtype[Any]
    place: Array  # an array on the device that the function wants it on
    step: float | None  # the largest one, where the user wants another than usual

    @classmethod
    def of(cls, x: Array, dtype: np.dtype[Any], step: float | None = None) -> _Argument:
        """x, rounded to what dtype holds."""
        return cls(to_device(x, "cpu").astype(dtype).astype(DOUBLE), dtype, x, step)

    @property
    def reach(self) -> float:
        """Its size, to which steps are relative."""
        if self.step is not None:
            return self.step / STEPS[0]
        return max(1.0, float(np.abs(self.values).max(initial=0.0)))

    def tensor(self, values: Array, dtype: np.dtype[Any]) -> Tensor:
        return Tensor(module_of(self.place).asarray(values.astype(dtype)), requires_grad=True)


class _Slopes(NamedTuple):
    """The slope along one direction: from the gradient and from differences."""

    analytic: float
    numeric: float
    error: float  # relative
    bent: bool  # they agree, but the differences forwards and backwards do not: a kink


class _Kink(NamedTuple):
    """A coordinate at which f may have no slope."""

    right: bool  # whether the gradient is right there, as far as kinks allow
    nearest: float  # the slope of ⟨f, g⟩ that is nearest to it
    bends: dict[Coordinate, float]  # s₊ − s₋ of each element of f that is kinked and does not jump


class _Point:
    """A function at its arguments: its value, its gradient for one random cotangent, and differences nearby.

    Args:
        recorded: the function, with a graph that may be differentiated. plain: the same values, without.
    """

    @np.errstate(all="ignore")  # what is not finite is looked for, and a step may leave the domain
    def __init__(
        self,
        recorded: Function,
        plain: Function,
        arguments: Sequence[_Argument],
        dtype: np.dtype[Any],
        rng: np.random.Generator,
        tolerance: float,
    ) -> None:
        self.plain, self.arguments, self.dtype, self.rng, self.tolerance = plain, arguments, dtype, rng, tolerance
        self.recorded = recorded
        self.y = self.value([a.values for a in arguments])
        self.deadline = np.inf  # of a search; the comparisons themselves have none
        again = self.value([a.values for a in arguments])
        largest = float(np.nanmax(np.abs(self.y), initial=0))
        if not np.allclose(self.y, again, rtol=0, atol=1e-9 * largest, equal_nan=True):
            raise ValueError(
                "check_grad: f returns other values when it is called again; a function without randomness (or one "
                "that calls mf.manual_seed first) is needed"
            )
        y, xs = self._forward()
        if y.dtype == SINGLE and dtype == DOUBLE:
            raise TypeError(
                f"check_grad: f returns {y.dtype} for {dtype} arguments; one dtype throughout is needed, as "
                f"differences of float32 are mostly rounding"
            )
        g = rng.standard_normal(y.shape)
        self.cotangent = _Argument.of(module_of(y.data).asarray(g.astype(y.dtype)), y.dtype)
        self.g = self.cotangent.values
        self.gradients = self._gradients(y, xs, self.g)
        self.finite = bool(np.isfinite(self.y).all() and all(np.isfinite(x).all() for x in self.gradients))

    def value(self, arrays: Sequence[Array]) -> Array:
        """f, in float64."""
        tensors = [a.tensor(x, DOUBLE) for a, x in zip(self.arguments, arrays, strict=True)]
        y = self.plain(*tensors)
        if not isinstance(y, Tensor):
            raise TypeError(f"check_grad: f returns a {type(y).__name__}; one Tensor is needed")
        return to_device(y.data, "cpu").astype(DOUBLE)

    def _forward(self) -> tuple[Tensor, list[Tensor]]:
        xs = [a.tensor(a.values, a.dtype) for a in self.arguments]
        return self.recorded(*xs), xs

    def _gradients(self, y: Tensor, xs: list[Tensor], g: Array) -> list[Array]:
        """The gradient of ⟨y, g⟩ by each argument."""
        cotangent = module_of(y.data).asarray(g.astype(y.dtype))
        parts = grad(y, xs, cotangent, allow_unused=True)
        return [to_device(part.data, "cpu").astype(DOUBLE) for part in parts]

    # ----- comparisons

    def checks(self, order: int, directions: int) -> Iterator[Check]:
        """One for each argument (that has elements) and direction."""
        for k, argument in enumerate(self.arguments):
            for _ in range(directions if argument.values.size else 0):
                yield self._check(order, k, self.rng.standard_normal(argument.values.shape))

    @np.errstate(all="ignore")
    def _check(self, order: int, k: int, d: Array) -> Check:
        where = f"order {order}, argument {k} of shape {d.shape}"
        for name, array in (("f", self.y), ("the gradient", self.gradients[k])):
            wrong = np.argwhere(~np.isfinite(array))
            if len(wrong):
                place = tuple(map(int, wrong[0]))
                fault = f"{where}: {name} is {array[place]} at {place}; only finite values can be compared"
                return Check(order, k, np.nan, np.nan, np.nan, "FAIL", 0, None, fault)
        along = self._compare(k, d, self.g)
        agrees = along.error <= self.tolerance
        if agrees and not along.bent:
            return Check(order, k, *along[:3])
        self.deadline = time.monotonic() + PATIENCE
        kinks: list[int] = []
        culprit: int | None = None
        bends: dict[Coordinate, dict[int, float]] = {}  # of each element of f, along each coordinate
        for at, right_there in self._conspicuous(k, d, np.arange(d.size)):
            kink = self._kink(k, at)
            if kink.right:
                kinks.append(at)
                for element, bend in kink.bends.items():
                    bends.setdefault(element, {})[at] = bend
            elif not right_there:
                culprit = at
                break
        if time.monotonic() > self.deadline:
            fault = (
                f"{where}: the gradient gives {along.analytic:.9g} along a random direction and central differences "
                f"{along.numeric:.9g}, and {PATIENCE} seconds of search have not told whether that is due to kinks "
                f"({len(kinks)} found) or wrong; fewer elements or a point away from kinks are needed"
            )
            return Check(order, k, *along[:3], "FAIL", len(kinks), None, fault)
        together = None if culprit is not None else self._wrong_together(k, bends)
        if together is not None:
            culprit = together
        if kinks and culprit is None:
            smooth = d.copy()
            smooth.flat[kinks] = 0
            rest = self._compare(k, smooth, self.g)
            if rest.error <= self.tolerance:
                return Check(order, k, *rest[:3], "kink", len(kinks))
        elif agrees and culprit is None:
            return Check(order, k, *along[:3])
        worst = self._worst(k, culprit)
        fault = (
            f"{where}: the gradient gives {along.analytic:.9g} along a random direction and central differences "
            f"{along.numeric:.9g} (relative error {along.error:.1e}, at most {self.tolerance:.0e})"
        )
        if together is not None:
            fault += "; where coordinates at a kink move together, it is not between the slopes on either side"
        elif worst is not None:
            fault += f"; worst at {worst[0]}: {worst[1]:.9g} against {worst[2]:.9g}"
        return Check(order, k, *along[:3], "FAIL", len(kinks), worst, fault)

    def _compare(self, k: int, d: Array, g: Array) -> _Slopes:
        """The slopes of ⟨f, g⟩ along d in argument k, at the step where they agree best."""
        size = float(np.linalg.norm(d))
        if size == 0:
            return _Slopes(0.0, 0.0, 0.0, False)
        d = d / size
        gradient = self.gradients[k] if g is self.g else self._gradients(*self._forward(), g)[k]
        analytic = float(np.vdot(gradient, d))
        rounding = self._rounding(k, g, gradient)
        best = _Slopes(analytic, np.nan, np.inf, False)
        for step in STEPS:
            numeric, bend = self._differences(k, d, g, step)
            slopes = abs(analytic) + abs(numeric)
            error = abs(analytic - numeric) / (slopes + rounding / self.tolerance)
            if error <= self.tolerance:
                # is it the mean of two slopes, as that of |x| at 0? Then they stay apart however small the step is
                bent = bend > max(BEND * slopes, ROUNDINGS * rounding)
                if bent and step > KINK_STEPS[-1]:
                    kept = self._differences(k, d, g, KINK_STEPS[-1])[1]
                    bent = kept > max(bend / 2, ROUNDINGS * rounding * STEPS[0] / KINK_STEPS[-1])
                return _Slopes(analytic, numeric, error, bent)
            if error < best.error:
                best = _Slopes(analytic, numeric, error, False)
        return best

    def _differences(self, k: int, d: Array, g: Array, step: float) -> tuple[float, float]:
        """(the central difference of ⟨f, g⟩ along d, by how much those forwards and backwards differ)."""
        h = step * self.arguments[k].reach
        up, down = (self._moved(k, self.arguments[k].values + sign * h * d) for sign in (1, -1))
        return float(np.vdot(up - down, g)) / (2 * h), abs(float(np.vdot(up + down - 2 * self.y, g))) / h

    def _rounding(self, k: int, g: Array, gradient: Array) -> float:
        """By how much rounding alone may set the two slopes apart.

        A value is off by some ε·|value|, and an argument by ε·|argument|, which moves the value by the gradient times
        that; both over the step. A gradient in float32 is off by some ε of the largest, as all went through the same
        values: the bias before a batch norm has the gradient 0, as the sum of many that are not.
        """
        reach, size = self.arguments[k].reach, float(np.linalg.norm(gradient))
        values = float(np.abs(self.y * g).sum()) + size * reach
        rounding = ROUNDINGS * np.finfo(DOUBLE).eps * values / (2 * STEPS[0] * reach)
        if self.dtype == SINGLE:
            largest = max(
                a.reach * float(np.linalg.norm(own)) for a, own in zip(self.arguments, self.gradients, strict=True)
            )
            rounding += ROUNDINGS * float(np.finfo(SINGLE).eps) * max(largest / reach, size)
        return float(rounding) + float(np.finfo(DOUBLE).tiny)

    def _moved(self, k: int, x: Array) -> Array:
        """f with x as argument k."""
        return self.value([x if n == k else a.values for n, a in enumerate(self.arguments)])

    # ----- kinks

    def _conspicuous(self, k: int, d: Array, among: Array) -> Iterator[tuple[int, bool]]:
        """The coordinates (of the flattened argument) along which gradient and differences disagree, or the differences
        among themselves, found by halving; and whether the gradient agrees."""
        part = np.zeros_like(d)
        part.flat[among] = d.flat[among]
        if time.monotonic() > self.deadline:
            return
        along = self._compare(k, part, self.g)
        agrees = along.error <= self.tolerance
        if agrees and not along.bent:
            return
        if len(among) == 1:
            yield int(among[0]), agrees
            return
        for half in np.array_split(among, 2):
            yield from self._conspicuous(k, d, half)

    def _kink(self, k: int, at: int) -> _Kink:
        """What is found at a coordinate along which gradient and differences disagree, or bend."""
        unit = np.zeros_like(self.arguments[k].values)
        unit.flat[at] = 1
        sides = [self._sides(k, unit, step * self.arguments[k].reach) for step in KINK_STEPS]
        gaps = [abs(right - left) for right, left, _ in sides]
        jumps = [jump for _, _, jump in sides]
        # of values this large, the last digits
        slope = max(float(np.abs(s).max(initial=0)) for s in sides[0][:2])
        reach = self.arguments[k].reach
        digits = ROUNDINGS**2 * np.finfo(DOUBLE).eps * (float(np.abs(self.y).max(initial=0)) + slope * reach)
        gap_floor, jump_floor = digits / (KINK_STEPS[-1] * reach), digits
        kinked = (gaps[-1] > np.maximum(gaps[0] / 2, gap_floor)) | (jumps[-1] > np.maximum(jumps[0] / 2, jump_floor))
        smooth = np.where(kinked, 0.0, self.g)
        slope_of_rest = self._compare(k, unit, smooth)
        legit = bool(kinked.any()) and slope_of_rest.error <= self.tolerance
        nearest = slope_of_rest.numeric
        bends: dict[Coordinate, float] = {}
        for element in (tuple(map(int, place)) for place in np.argwhere(kinked)):
            clipped, right = self._between(k, unit, element, [(r, s) for r, s, _ in sides[:2]])
            legit = legit and right
            nearest += float(self.g[element]) * clipped
            if not jumps[-1][element] > max(jumps[0][element] / 2, jump_floor):
                bends[element] = float(sides[0][0][element] - sides[0][1][element])
        return _Kink(legit, nearest, bends)

    def _between(
        self, k: int, d: Array, element: Coordinate, sides: Sequence[tuple[Array, Array]]
    ) -> tuple[float, bool]:
        """(the value between an element's slopes on either side along d that is nearest to its gradient, whether that
        is the same); `sides` are (s₊, s₋) at some steps, and right at one step is right."""
        one = np.zeros_like(self.g)
        one[element] = 1
        own = float(np.vdot(self._gradients(*self._forward(), one)[k], d))
        ends = [sorted((float(right[element]), float(left[element]))) for right, left in sides]
        clipped = min((min(max(own, low), high) for low, high in ends), key=lambda value: abs(value - own))
        room = self.tolerance * (abs(own) + abs(clipped)) + self._rounding(k, one, d * own) * ROUNDINGS
        return clipped, abs(own - clipped) <= room

    def _wrong_together(self, k: int, bends: dict[Coordinate, dict[int, float]]) -> int | None:
        """A coordinate of an element of f whose gradient is right along each kinked coordinate, and wrong along some
        together."""
        rng = np.random.default_rng(0)
        for element, by_coordinate in bends.items():
            ats = list(by_coordinate)
            if len(ats) < 2 or min(by_coordinate.values()) < 0 < max(by_coordinate.values()):
                continue
            for weights in (np.ones(len(ats)), *rng.standard_normal((DIRECTIONS_TOGETHER, len(ats)))):
                d = np.zeros_like(self.arguments[k].values)
                d.flat[ats] = weights / np.linalg.norm(weights)
                sides = [self._sides(k, d, step * self.arguments[k].reach)[:2] for step in KINK_STEPS[:2]]
                if not self._between(k, d, element, sides)[1]:
                    return ats[0]
        return None

    def _sides(self, k: int, unit: Array, h: float) -> tuple[Array, Array, Array]:
        """(s₊, s₋, the larger jump) of every element of f along a coordinate."""
        x = self.arguments[k].values
        right, left = ([self._moved(k, x + sign * n * h * unit) for n in (1, 2, 3)] for sign in (1, -1))
        slopes = [(-5 * v[0] + 8 * v[1] - 3 * v[2]) / (2 * h) for v in (right, left)]
        return slopes[0], -slopes[1], np.maximum(abs(right[0] - self.y), abs(left[0] - self.y))

    def _worst(self, k: int, culprit: int | None) -> tuple[Coordinate, float, float] | None:
        """(coordinate, analytic, numeric) where they differ most, among the first coordinates and the culprit; None if
        each by itself is right."""
        gradient = self.gradients[k]
        found = []
        for at in [*([] if culprit is None else [culprit]), *range(min(gradient.size, COORDINATES))]:
            if time.monotonic() > self.deadline:
                break
            unit = np.zeros_like(gradient)
            unit.flat[at] = 1
            along = self._compare(k, unit, self.g)
            if along.error > self.tolerance:
                found.append((abs(along.analytic - along.numeric), at))
        for _, at in sorted(found, reverse=True):
            kink = self._kink(k, at)
            if not kink.right:
                coordinate = tuple(int(n) for n in np.unravel_index(at, gradient.shape))
                return coordinate, float(gradient.flat[at]), kink.nearest
        return None
