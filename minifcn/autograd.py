"""The engine: Tensor, Primitive, backward, grad, no_grad. It knows no operation.

A Primitive pairs a forward function on arrays with one VJP (vector-Jacobian product) per argument:

    conv2d_p = Primitive("conv2d(x, w) -> y")
    conv2d_p.defvjp(lambda gy, w, geom: conv_transpose2d_p(gy, w, geom=geom),
                    lambda gy, x, geom: conv2d_weight_p(x, gy, geom=geom))

A cotangent is a gradient on its way down: what the loss changes by when y changes. A VJP takes the one of its output
first, then names the values that it needs: arguments (x), the output (y) or keyword
parameters (geom). Those, and no others, are kept until backward has used them. VJPs are written in primitives, never in
raw arrays, so a gradient is differentiable itself, to any order.

Every result remembers its Node: the primitive, the sources of its arguments, and what the VJPs named. Nodes are
numbered as they are made and arguments are made before results, so walking the numbers downwards visits every node
after all nodes that used it. There is no recursion, however deep the graph.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ContextDecorator, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minifcn import debugging, kernels
from minifcn.array import (
    FLOATS,
    Array,
    device_of,
    export_dlpack,
    freeze,
    import_dlpack,
    is_array,
    module_of,
    out_of_memory,
    own,
    to_device,
)

if TYPE_CHECKING:  # functional/methods.py lends Tensor its operators when it is imported
    from minifcn.functional.methods import TensorMethods as _Methods
else:
    _Methods = object


class _Mode(threading.local):
    """Each thread's own switch. (A class attribute is found much faster than a missing attribute's default.)"""

    enabled = True


_mode = _Mode()
_numbers = itertools.count()
_accumulating = threading.Lock()


def is_grad_enabled() -> bool:
    """Whether operations on this thread are recorded for backward."""
    return _mode.enabled


class set_grad_enabled(ContextDecorator):
    """Record operations within the block (or the decorated function), or do not."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.before: list[bool] = []

    def _recreate_cm(self) -> Self:  # of a decorated function: one for each call, as threads may be inside together
        return type(self)(self.enabled)

    def __enter__(self) -> Self:
        self.before.append(is_grad_enabled())
        _mode.enabled = self.enabled
        return self

    def __exit__(self, *_: object) -> None:
        _mode.enabled = self.before.pop()


def no_grad() -> set_grad_enabled:
    """Within the block, or the decorated function, nothing is recorded and no memory is kept for backward.

    >>> x = Tensor([1.0], requires_grad=True)
    >>> with no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    return set_grad_enabled(False)


Source: TypeAlias = "Tensor | Node"  # where a value comes from: a leaf itself, or the node that computed it


class Tensor(_Methods):
    """An array and, if it was computed from tensors that require gradients, the node that says how.

    Args:
        array: a float array, shared and not copied; or numbers, which become float32 (integers stay integers).
        requires_grad: whether backward() should leave ∂/∂self in `.grad`.

    Raises:
        TypeError: requires_grad of an array that is neither float32 nor float64.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_array", "_node", "_version", "grad", "requires_grad")
    __array_ufunc__ = None  # so that ndarray * Tensor comes to Tensor.__rmul__
    __hash__ = object.__hash__

    def __init__(self, array: ArrayLike | Tensor, requires_grad: bool = False) -> None:
        self._version = [0]  # counts in-place changes; tensors of one memory share the counter
        if isinstance(array, Tensor):
            self._version = array._version
            array = array._array
        elif not isinstance(array, np.ndarray) and not hasattr(array, "__cuda_array_interface__"):
            given, numbers = array, not hasattr(array, "dtype")
            try:
                array = np.asarray(array)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"Tensor: no array can be made of what was given: {error}") from None
            if array.dtype.kind not in "biufc":
                raise TypeError(f"Tensor: {type(given).__name__} became dtype {array.dtype}; numbers are needed")
            if numbers and array.dtype == np.float64:  # Python numbers have no precision of their own
                array = array.astype(np.float32)
        if isinstance(array, np.ndarray) and type(array) is not np.ndarray:
            if hasattr(array, "mask"):
                raise TypeError("Tensor: a masked array was given; one without a mask, such as x.filled(0), is needed")
            array = np.asarray(array)  # a matrix has a product of its own
        self._array: Array = array  # type: ignore[assignment]
        if requires_grad is not True and requires_grad is not False:
            raise TypeError(f"Tensor: requires_grad is {requires_grad!r:.40}; True or False is needed")
        if requires_grad and self._array.dtype not in FLOATS:
            raise TypeError(f"Tensor: requires_grad with dtype {self.dtype}; float32 or float64 is needed")
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self._node: Node | None = None

    @property
    def data(self) -> Array:
        """The raw array. Assigning one of the same shape (or `t.data -= …`) replaces it outside of any graph; a graph
        that still needs the old values will say so in backward(). Writing into single elements of a leaf's array is not
        noticed, as with PyTorch's .data; a result's array is read-only."""
        return self._array

    @data.setter
    def data(self, array: Array) -> None:
        if not is_array(array):
            raise TypeError(f"Tensor.data: a {type(array).__name__} was assigned; an array is needed")
        if array.shape != self.shape:
            raise ValueError(f"Tensor.data: a value of shape {array.shape} for {self.shape}; the shapes must be equal")
        if self.requires_grad and array.dtype not in FLOATS:
            raise TypeError(f"Tensor.data: dtype {array.dtype} for a tensor that requires gradients; a float is needed")
        if array is self._array:  # t.data -= …: changed in place, for all who share it
            self._version[0] += 1
        else:  # another array: whoever shared the old one still has it
            self._array, self._version = array, [self._version[0] + 1]

    @contextmanager
    def writing(self) -> Iterator[Array]:
        """The raw array, to be changed in place. A graph that still needs the old values will say so in backward()."""
        if self._node is not None:
            raise RuntimeError(
                "writing: this tensor is the result of an operation; only leaves may be changed in place"
            )
        self._version[0] += 1
        yield self._array

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def device(self) -> str:
        """ "cpu" or "cuda:N"."""
        return device_of(self._array)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than by a recorded operation."""
        return self._node is None

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array: the same memory on the CPU (read-only for a result), a copy from a GPU."""
        return to_device(self._array, "cpu")

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """The memory itself, for another library's from_dlpack (torch.from_dlpack(t), cupy.from_dlpack(t)); no copy.

        A result's memory is exported as read-only, which PyTorch does not heed: what it writes there, a graph that
        still needs the old values does not notice.

        Raises BufferError for a tensor that requires gradients; use detach().
        """
        if self.requires_grad:
            raise BufferError(
                f"__dlpack__: a tensor of shape {self.shape} that requires gradients cannot be shared; use detach()"
            )
        return export_dlpack(self._array, options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """(device type, device number) in DLPack's numbering."""
        kind, number = self._array.__dlpack_device__()
        return int(kind), int(number)

    def item(self) -> float | int | bool:
        """The value of a one-element tensor as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: shape {self.shape} has {self.size} elements; exactly one is needed")
        value: float | int | bool = self._array.reshape(()).item()
        return value

    def detach(self) -> Tensor:
        """The same array outside of any graph."""
        detached = Tensor(self._array)
        detached._version = self._version
        return detached

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __contains__(self, value: object) -> bool:
        """Whether an element equals the value."""
        there = module_of(self._array).asarray(Tensor(value)._array)  # type: ignore[arg-type]
        return bool((self == Tensor(there)).data.any())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a scalar tensor has no length; at least one axis is needed")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        value = self.item()
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"int: the value is {value}; a finite one is needed")
        return int(value)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(")
        place = "" if self.device == "cpu" else f", device={self.device!r}"
        return f"Tensor({values}, dtype={self.dtype}{place}{', requires_grad=True' if self.requires_grad else ''})"

    def backward(
        self, gradient: Tensor | ArrayLike | None = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add ∂⟨self, gradient⟩/∂leaf to the `.grad` of every leaf that requires it.

        Args:
            gradient: the cotangent, of self's shape; needed unless self has one element (then it is 1).
            retain_graph: keep what another backward through the same graph needs.
            create_graph: make the gradients differentiable themselves (this retains the graph).

        Raises:
            RuntimeError: nothing here requires gradients, the graph was freed, or a value was changed in place.
            ValueError: gradient is missing or of another shape.
        """
        cotangent = _cotangent("backward", self, gradient)
        retain = retain_graph or create_graph
        given = {id(cotangent._array)}
        for leaf, g in _walk([self], [cotangent], None, create_graph, retain):
            assert isinstance(leaf, Tensor)
            _check_shape("backward", leaf, g)
            with _accumulating:  # another thread may be adding to the same leaf
                if leaf.grad is not None:
                    g = _add(leaf.grad, g, create_graph)
                if not create_graph:  # an array of its own, which may be clipped or scaled in place
                    g = Tensor(own(g._array, shared=id(g._array) in given))
                    given.add(id(g._array))
                leaf.grad = g


class Node:
    """One recorded call of a primitive."""

    __slots__ = (
        "extras", "freed", "keep", "number", "output", "params", "place", "primitive", "saved", "sources", "versions",
    )  # fmt: skip

    def __init__(
        self, primitive: Primitive, args: Sequence[Tensor], needs: tuple[bool, ...], y: Tensor, extras: Sequence[Array],
        params: dict[str, Any],
    ) -> None:  # fmt: skip
        self.primitive = primitive
        self.keep = keep = primitive.keeps(needs)
        self.number = next(_numbers)
        # where the cotangent of each argument goes: None where none is needed
        self.sources: list[Source | None] = [(a._node or a) if a.requires_grad else None for a in args]
        self.saved = [args[k] for k in keep.positions]
        self.versions = [a._version[0] for a in self.saved]
        # the output's array, not the output: a tensor refers to its node, and a cycle would outlive its last use
        self.output = (y._array, y._version) if keep.output else None
        self.extras = extras
        self.params = params
        self.place = debugging.place() if debugging.is_debugging() else None
        self.freed = False

    def values(self) -> dict[str, Any]:
        """Everything that a VJP may name."""
        if self.freed:
            raise RuntimeError(
                f"backward: the graph of {self.primitive.name} was freed by an earlier backward; "
                f"pass retain_graph=True to that one to walk it twice"
            )
        values: dict[str, Any] = self.params.copy()
        for name, tensor, version in zip(self.keep.names, self.saved, self.versions, strict=True):
            if tensor._version[0] != version:
                raise RuntimeError(
                    f"backward: {name} of {self.primitive.name}, shape {tensor.shape}, was changed in place after it "
                    f"was used; call backward before changing it"
                )
            values[name] = tensor
        if self.extras:
            values.update(zip(self.primitive.extras, self.extras, strict=True))
        if self.output is not None:
            y = _result(self.output[0])
            y._version, y._node, y.requires_grad = self.output[1], self, True
            values[self.primitive.output] = y
        return values

    def free(self) -> None:
        """Drop the values that the graph kept alive. Its shape stays: who walks it again must be told, and who only
        passes by must not."""
        self.saved, self.versions, self.output, self.extras, self.params = [], [], None, (), {}
        self.freed = True


class _Keep(NamedTuple):
    """What a node keeps, for one combination of arguments that need gradients."""

    positions: list[int]
    names: list[str]
    output: bool


Vjp = Callable[..., Any]
PRIMITIVES: dict[str, Primitive] = {}


class Primitive:
    """A differentiable operation: how an array is computed, and by `defvjp` how cotangents go back.

    A VJP takes the cotangent of the output, and then *by name* what it needs: arguments, the output, keyword
    parameters. It is written in operations on Tensors, so that its result is differentiable too.

    >>> cube = Primitive("cube(x) -> y", lambda x: x**3)
    >>> cube.defvjp(lambda gy, x: gy * 3 * x * x)
    >>> x = Tensor([2.0], requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    Tensor([12.], dtype=float32)
    >>> del PRIMITIVES["cube"]

    Args:
        signature: "name(args) -> output", e.g. "conv2d(x, w) -> y". After the output, further results may be named that
            are not differentiable, such as the winners of a max pooling: "max_pool2d(x) -> y, tap".
        forward: arrays and keyword parameters to the array (or a tuple, if there are further results). Without it the
            kernel registered under the primitive's name computes it.
        view: whether the output shares the first argument's memory.
    """

    def __init__(self, signature: str, forward: Callable[..., Any] | None = None, view: bool = False) -> None:
        head, _, results = signature.partition("->")
        self.name, _, args = head.strip().rstrip(")").partition("(")
        self.args = tuple(a.strip() for a in args.split(","))
        self.output, *self.extras = (r.strip() for r in results.split(","))
        self.view = view
        self._forward = forward or (lambda *arrays, **params: kernels.run(self.name, *arrays, **params))
        self._vjps: list[Vjp | None] = []
        self._joint: Vjp | None = None
        self._names: list[list[str]] = []  # the values that each VJP names
        self._keeps: dict[tuple[bool, ...], _Keep] = {}
        PRIMITIVES[self.name] = self

    def defvjp(self, *vjps: Vjp | None) -> None:
        """One VJP per argument, in order; None where the output does not vary with it."""
        self._vjps = list(vjps)
        self._names = [[] if f is None else list(inspect.signature(f).parameters)[1:] for f in vjps]

    def defvjp_joint(self, vjp: Vjp) -> None:
        """One function that returns the cotangents of all arguments, where they share most of their work."""
        self._joint = vjp
        self._names = [list(inspect.signature(vjp).parameters)[1:]] * len(self.args)

    def keeps(self, needs: tuple[bool, ...]) -> _Keep:
        """What the VJPs of the needed arguments name."""
        keep = self._keeps.get(needs)
        if keep is None:
            if not self._names:
                raise NotImplementedError(f"{self.name}: no VJP is defined; its result cannot require gradients")
            named = {name for need, names in zip(needs, self._names, strict=True) if need for name in names}
            positions = [k for k, name in enumerate(self.args) if name in named]
            keep = self._keeps[needs] = _Keep(positions, [self.args[k] for k in positions], self.output in named)
        return keep

    def __call__(self, *args: Tensor, **params: Any) -> Tensor:
        """The output for these arguments and keyword parameters, recorded if one of the arguments needs gradients."""
        try:
            arrays = [a._array for a in args]
        except AttributeError:
            given = ", ".join(type(a).__name__ for a in args)
            raise TypeError(f"{self.name}: arguments are {given}; Tensors are needed") from None
        result = self._compute(arrays, params)
        if self.extras:
            return self._record(args, arrays, result[0], result[1:], params)
        return self._record(args, arrays, result, (), params)

    def with_extras(self, *args: Tensor, **params: Any) -> tuple[Tensor, Sequence[Array]]:
        """The output, and the arrays of the further results."""
        arrays = [a._array for a in args]
        array, *extras = self._compute(arrays, params)
        return self._record(args, arrays, array, extras, params), extras

    def _compute(self, arrays: list[Array], params: dict[str, Any]) -> Any:
        try:
            if debugging.is_watched():
                with debugging.computing():
                    return self._forward(*arrays, **params)
            return self._forward(*arrays, **params)
        except MemoryError as error:
            raise out_of_memory(self.name, error) from error

    def _record(
        self, args: tuple[Tensor, ...], arrays: list[Array], array: Array, extras: Sequence[Array],
        params: dict[str, Any],
    ) -> Tensor:  # fmt: skip
        """The output as a Tensor that knows where it came from."""
        for a in arrays:
            if array is a:  # the argument itself came back; freezing it would freeze the caller's array
                array = array.view()
        y = _result(array)
        # indexing and reshape copy where they must
        if self.view and y._array.base is not None and module_of(array).may_share_memory(y._array, arrays[0]):
            y._version = args[0]._version
        if is_grad_enabled():
            needs = tuple([a.requires_grad for a in args])  # a list first: twice as fast as from a generator
            if True in needs:
                y._node = Node(self, args, needs, y, extras, params)
                y.requires_grad = True
        if debugging.is_watched():
            debugging.show_result(self, args, params, extras, y)
        return y

    def cotangents(self, node: Node, gy: Tensor, wanted: list[bool]) -> Sequence[Tensor | None]:
        """The VJPs of the wanted arguments, in order of the arguments."""
        if debugging.is_watched():
            with debugging.backward_of(node):
                cotangents = self._cotangents(node, gy, wanted)
                debugging.inspect_cotangents(cotangents, gy)
                return cotangents
        return self._cotangents(node, gy, wanted)

    def _cotangents(self, node: Node, gy: Tensor, wanted: list[bool]) -> Sequence[Tensor | None]:
        values = node.values()
        try:
            if self._joint is not None:
                every = self._joint(gy, *[values[name] for name in self._names[0]])
                return [g if w else None for g, w in zip(every, wanted, strict=True)]
            return [
                f(gy, *[values[name] for name in names]) if w and f is not None else None
                for f, names, w in zip(self._vjps, self._names, wanted, strict=True)
            ]
        except KeyError as error:
            if all(name in values for names, w in zip(self._names, wanted, strict=True) if w for name in names):
                raise  # the VJP's own
            raise TypeError(
                f"{self.name}: its VJP names {error}; arguments ({', '.join(self.args)}), the result ({self.output}) "
                f"and keyword parameters can be named"
            ) from None


def _result(array: Array) -> Tensor:
    """A Tensor of an operation's result: as Tensor(freeze(array)), without asking what the array might be."""
    if not isinstance(array, np.ndarray):
        return Tensor(freeze(array))
    array.flags.writeable = False
    y = Tensor.__new__(Tensor)
    y._version = [0]
    y._array = array
    y.requires_grad = False
    y.grad = None
    y._node = None
    return y


def from_dlpack(x: Any) -> Tensor:
    """A Tensor on the memory of another library's array (torch, CuPy, JAX, …), without a copy.

    Raises TypeError where x does not speak DLPack, RuntimeError where its library refuses (it requires gradients, or
    lies on a device that is neither the CPU nor CUDA).

    >>> from_dlpack(np.array([1.0, 2.0]))
    Tensor([1., 2.], dtype=float64)
    """
    return Tensor(import_dlpack(x))


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | ArrayLike | Sequence[Tensor | ArrayLike | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor, ...]:
    """∂ Σ⟨output, grad_output⟩ / ∂input for every input, without touching any `.grad`.

    Args:
        outputs: a tensor or several.
        inputs: a tensor or several, leaves or results.
        grad_outputs: one cotangent per output, of its shape; needed unless it has one element.
        create_graph: make the gradients differentiable themselves.
        retain_graph: keep what another walk needs; by default, create_graph.
        allow_unused: give zeros for an input on which no output depends, instead of raising.

    Raises:
        RuntimeError: an input that does not require gradients or is not used, or a freed graph.

    >>> x = Tensor([3.0], requires_grad=True)
    >>> first, = grad(x**3, x, create_graph=True)
    >>> second, = grad(first, x)
    >>> first.item(), second.item()
    (27.0, 18.0)
    """
    outputs, inputs = _tensors("outputs", outputs), _tensors("inputs", inputs)
    given: list[Any]
    if isinstance(grad_outputs, list | tuple):
        given = list(grad_outputs)
    else:
        given = [None] * len(outputs) if grad_outputs is None else [grad_outputs]
    if len(given) != len(outputs):
        raise ValueError(f"grad: {len(given)} grad_outputs for {len(outputs)} outputs; one for each is needed")
    for k, x in enumerate(inputs):
        if not x.requires_grad:
            raise RuntimeError(f"grad: input {k}, shape {x.shape}, does not require gradients; set requires_grad=True")
    live = [(y, g) for y, g in zip(outputs, given, strict=True) if y.requires_grad or not allow_unused]
    cotangents = [_cotangent("grad", y, g) for y, g in live]
    retain = create_graph if retain_graph is None else retain_graph
    found = {id(s): g for s, g in _walk([y for y, _ in live], cotangents, inputs, create_graph, retain)}
    result = []
    for k, x in enumerate(inputs):
        g = found.get(id(x._node or x))
        if g is None:
            if not allow_unused:
                raise RuntimeError(
                    f"grad: no output depends on input {k}, shape {x.shape}; allow_unused=True gives zeros for it"
                )
            g = Tensor(module_of(x._array).zeros_like(x._array))
        _check_shape("grad", x, g)
        result.append(g)
    return tuple(result)


def _check_shape(op: str, x: Tensor, g: Tensor) -> None:
    if g.shape != x.shape:
        raise RuntimeError(
            f"{op}: the gradient of a tensor of shape {x.shape} came out as {g.shape}; the VJP of an operation that "
            f"used it returns a wrong shape"
        )


def _tensors(name: str, given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    tensors = [given] if isinstance(given, Tensor) else list(given) if isinstance(given, Sequence) else [given]
    for t in tensors:
        if not isinstance(t, Tensor):
            raise TypeError(f"grad: {name} holds a {type(t).__name__}; a Tensor or several are needed")
    if not tensors:
        raise ValueError(f"grad: no {name}; at least one Tensor is needed")
    return tensors


def _cotangent(op: str, y: Tensor, gradient: Any) -> Tensor:
    if not y.requires_grad:
        raise RuntimeError(
            f"{op}: the tensor of shape {y.shape} does not require gradients, nor does what it came from"
        )
    if gradient is None:
        if y.size != 1:
            raise ValueError(f"{op}: gradient is missing for shape {y.shape}; only a one-element tensor has a default")
        return Tensor(module_of(y._array).ones_like(y._array))
    if not isinstance(gradient, Tensor) and not is_array(gradient):
        raise TypeError(f"{op}: gradient is a {type(gradient).__name__}; a Tensor or an array is needed")
    g = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    if g.dtype != y.dtype:
        if g.dtype not in FLOATS and g.dtype.kind not in "biu":
            raise TypeError(f"{op}: gradient has dtype {g.dtype} and the tensor {y.dtype}; real numbers are needed")
        g = g.to(y.dtype)
    if g.shape != y.shape:
        raise ValueError(f"{op}: gradient has shape {g.shape} and the tensor {y.shape}; they must be equal")
    return g


def _add(a: Tensor, b: Tensor, create_graph: bool) -> Tensor:
    with set_grad_enabled(create_graph), np.errstate(all="ignore"):
        return a + b


def _walk(
    outputs: list[Tensor],
    cotangents: list[Tensor],
    inputs: list[Tensor] | None,
    create_graph: bool,
    retain: bool,
) -> list[tuple[Source, Tensor]]:
    """Walk the graph downwards from the outputs: (source, its complete cotangent) for every input; for every leaf, if
    no inputs are named."""
    targets = None if inputs is None else {id(x._node or x): x._node or x for x in inputs}
    # a node made before every target cannot depend on one
    first = 0 if targets is None else min((s.number if isinstance(s, Node) else 0 for s in targets.values()), default=0)
    found: dict[int, Node] = {}
    stack: list[Source | None] = [y._node for y in outputs]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in found and node.number >= first:
            found[id(node)] = node
            stack.extend(node.sources)
    nodes = sorted(found.values(), key=lambda node: node.number)
    found.clear()

    useful = None  # the nodes and inputs from which an input can be reached; None: all of them
    if targets is not None:
        useful = set(targets)
        for node in nodes:
            if any(id(s) in useful for s in node.sources):
                useful.add(id(node))

    pending: dict[int, tuple[Source, Tensor]] = {}
    complete: list[tuple[Source, Tensor]] = []

    def send(source: Source, g: Tensor) -> None:
        before = pending.get(id(source))
        pending[id(source)] = (source, g if before is None else before[1] + g)

    with set_grad_enabled(create_graph), np.errstate(all="ignore"):  # ∞ and NaN are results (see functional's quiet)
        for y, g in zip(outputs, cotangents, strict=True):
            send(y._node or y, g)
        cotangents.clear()
        while nodes:
            node = nodes.pop()
            arrived = pending.pop(id(node), None)
            if arrived is None:
                continue
            gy = arrived[1]
            if targets is not None and id(node) in targets:
                complete.append((node, gy))
            sources = node.sources
            if useful is None:
                wanted = [s is not None for s in sources]
            else:
                wanted = [s is not None and id(s) in useful for s in sources]
            if True in wanted:
                for source, gx in zip(sources, node.primitive.cotangents(node, gy, wanted), strict=True):
                    if source is not None and gx is not None:
                        send(source, gx)
                    del gx  # or it would live on beside its successor
                if not retain:
                    node.free()
            del node, gy, arrived, sources
    complete += [
        (source, g)
        for source, g in pending.values()
        if isinstance(source, Tensor) and (targets is None or id(source) in targets)
    ]
    return complete
