"""Parameter, Module and the containers: a tree of named parameters and buffers, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from minifcn.array import FLOATS, is_array, module_of, to_device
from minifcn.autograd import Tensor

Hook = Callable[["Module", tuple[Any, ...], Any], None]


class Parameter(Tensor):
    """A Tensor that a module owns and an optimizer changes; requires_grad=False keeps it fixed.

    A read-only array is copied, as it could not be trained.
    """

    __slots__ = ()

    def __init__(self, array: Any, requires_grad: bool = True) -> None:
        super().__init__(array, requires_grad)
        if isinstance(self._array, np.ndarray) and not self._array.flags.writeable:
            self._array = self._array.copy()


class Loaded(NamedTuple):
    """What load_state_dict(strict=False) left out."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """Takes a hook off again."""

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


class Module:
    """A part of a network: assign Parameters, Modules and buffers to attributes, and define forward()."""

    training: bool

    def __init__(self) -> None:
        self.training = True
        self._parameters: dict[str, Parameter | None] = {}
        self._buffers: dict[str, Tensor | None] = {}
        self._modules: dict[str, Module] = {}
        self._hooks: list[Hook] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__}: no forward() is defined")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        for hook in tuple(self._hooks):
            hook(self, args, output)
        return output

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call hook(module, inputs, output) after every forward; the handle's remove() ends that."""
        self._hooks.append(hook)
        return HookHandle(self._hooks, hook)

    # ----- the tree

    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__ and isinstance(value, Parameter | Module):
            raise AttributeError(f"{type(self).__name__}: super().__init__() must come before assigning {name}")
        if isinstance(value, Parameter):
            self._put(self._parameters, name, value)
        elif isinstance(value, Module):
            self._put(self._modules, name, value)
        elif name in self.__dict__.get("_buffers", {}) or name in self.__dict__.get("_parameters", {}):
            table, kind = (self._buffers, Tensor) if name in self._buffers else (self._parameters, Parameter)
            if value is not None and not isinstance(value, kind):
                raise TypeError(
                    f"{type(self).__name__}: {name} is a {kind.__name__} and was assigned a {type(value).__name__}; "
                    f"a {kind.__name__} or None is needed (or assign to {name}.data)"
                )
            table[name] = value  # type: ignore[assignment]
        else:
            self.__dict__.get("_modules", {}).pop(name, None)
            object.__setattr__(self, name, value)

    def _put(self, table: dict[str, Any], name: str, value: Any) -> None:
        """Into one table and out of the others; a name that is there already keeps its place in the order."""
        for other in (self.__dict__, self._parameters, self._buffers, self._modules):
            if other is not table:
                other.pop(name, None)
        table[name] = value

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(table, {}):
                return self.__dict__[table][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def register_buffer(self, name: str, value: Tensor | None) -> None:
        """A tensor that belongs to the state but is not trained, such as running statistics."""
        self._buffers[name] = value

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """As assigning it; None stands for a parameter that this module does without (bias=False)."""
        self._parameters[name] = value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this one and all below, parents first."""
        yield prefix, self
        for name, child in self._modules.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below."""
        return (m for _, m in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The modules directly below."""
        return iter(self._modules.values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, p in module._parameters.items():
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    yield (f"{prefix}.{name}" if prefix else name), p

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer)."""
        for prefix, module in self.named_modules():
            for name, b in module._buffers.items():
                if b is not None:
                    yield (f"{prefix}.{name}" if prefix else name), b

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer."""
        return (b for _, b in self.named_buffers())

    # ----- state

    def train(self, mode: bool = True) -> Self:
        """Training mode for this module and all below: dropout drops, batch norm uses the batch's statistics."""
        for m in self.modules():
            m.training = mode
        return self

    def eval(self) -> Self:
        """Inference mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train every parameter below, or keep all fixed."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of every parameter."""
        for p in self.parameters():
            p.grad = None

    def to(self, target: Any) -> Self:
        """Move every parameter and buffer to a device ("cpu", "cuda"), or cast the floats among them to a dtype."""
        is_device = isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")
        if not is_device and Tensor(np.zeros(0, np.float32)).to(target).dtype not in FLOATS:
            raise TypeError(
                f"{type(self).__name__}.to: {target!r:.40} is no float dtype; np.float32 or np.float64 is needed"
            )
        for t in (*self.parameters(), *self.buffers()):
            if is_device or t.dtype.kind == "f":
                moved = Tensor(t.data).to(target).data
                if moved is not t.data:
                    t._array = moved.copy() if isinstance(moved, np.ndarray) else moved  # results are read-only
                    t._version[0] += 1
                    t.grad = None
        return self

    def cpu(self) -> Self:
        """All parameters and buffers on the CPU."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """All parameters and buffers on the first GPU."""
        return self.to("cuda")

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its dotted name, sharing memory with the module."""
        return {name: t.detach() for name, t in self._named_state()}

    def _named_state(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self.named_modules():
            for name, t in (*module._parameters.items(), *module._buffers.items()):
                if t is not None:
                    yield (f"{prefix}.{name}" if prefix else name), t

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Copy arrays or Tensors into the parameters and buffers of the same names.

        Args:
            state: dotted name → array or Tensor.
            strict: whether a missing or an unexpected name is an error. A wrong shape always is.

        Returns:
            The missing and unexpected names.

        Raises:
            ValueError: naming every missing, unexpected and mis-shaped key; nothing is changed then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state is a {type(state).__name__}; a dictionary of arrays is needed")
        own = dict(self._named_state())
        missing = [k for k in own if k not in state]
        unexpected = [k for k in state if k not in own]
        misshaped = [
            f"{k} is {np.shape(state[k])} and should be {own[k].shape}"
            for k in own
            if k in state and np.shape(state[k]) != own[k].shape
        ]
        faults = [f"mis-shaped: {'; '.join(misshaped)}"] if misshaped else []
        if strict:
            faults += [f"missing: {', '.join(missing)}"] if missing else []
            faults += [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
        if faults:
            raise ValueError(
                f"load_state_dict: the state does not fit this {type(self).__name__} — {' — '.join(faults)}"
            )
        for k, t in own.items():
            if k in state:
                value = state[k].data if isinstance(state[k], Tensor) else state[k]
                with t.writing() as array:
                    array[...] = to_device(value, t.device) if is_array(value) else module_of(array).asarray(value)
        return Loaded(missing, unexpected)

    def extra_repr(self) -> str:
        """What repr shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({name}): {child!r}".replace("\n", "\n  ") for name, child in self._modules.items()]
        inside = "\n" + "\n".join(children) + "\n" if children else ""
        return f"{type(self).__name__}({self.extra_repr()}{inside})"
