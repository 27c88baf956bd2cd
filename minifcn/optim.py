"""SGD, Adam, and learning-rate schedules that advance by one training step at a time.

Parameters are updated in place, by one kernel for each (kernels/update.py): an update reads each number once, and needs
no memory beyond the optimizer's own state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minifcn import kernels
from minifcn.array import Array, is_array, module_of, to_device
from minifcn.autograd import Tensor
from minifcn.nn.module import Module

Group = dict[str, Any]


class Optimizer:
    """Parameter groups, each with its own hyper-parameters, and the state kept for every parameter.

    Args:
        params: parameters, or groups {"params": […], "lr": …} that override the defaults.
        defaults: hyper-parameters of groups that do not set them.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[Group], defaults: dict[str, Any]) -> None:
        if not isinstance(params, Iterable) or isinstance(params, Tensor | Mapping):
            raise TypeError(f"{type(self).__name__}: params is a {type(params).__name__}; model.parameters() is needed")
        listed = list(params)
        groups: list[Group] = listed if listed and isinstance(listed[0], dict) else [{"params": listed}]  # type: ignore[assignment]
        self.param_groups: list[Group] = []
        for group in groups:
            full: Group = {**defaults, **group, "params": list(group["params"])}
            full.setdefault("initial_lr", full["lr"])
            for name in ("lr", "weight_decay", "momentum", "eps"):
                if name in full and not isinstance(full[name], int | float | np.integer | np.floating):
                    raise TypeError(f"{type(self).__name__}: {name} is {full[name]!r:.40}; a number is needed")
                if name in full and not 0 <= full[name] < math.inf:
                    raise ValueError(f"{type(self).__name__}: {name} is {full[name]}; a number from 0 on is needed")
            if not all(0 <= beta < 1 for beta in full.get("betas", ())):
                raise ValueError(f"{type(self).__name__}: betas are {full['betas']}; 0 or more and below 1 is needed")
            self.param_groups.append(full)
        every = [p for g in self.param_groups for p in g["params"]]
        for p in every:
            if not isinstance(p, Tensor):
                raise TypeError(f"{type(self).__name__}: a parameter is a {type(p).__name__}; Tensors are needed")
        if not every:
            raise ValueError(f"{type(self).__name__}: no parameters; at least one is needed")
        if len({id(p) for p in every}) < len(every):
            raise ValueError(f"{type(self).__name__}: a parameter is in two groups; each may be in one only")
        self.state: dict[int, dict[str, Any]] = {}  # by position over all groups

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        position = 0
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    with p.writing() as array:
                        self._update(array, p.grad.data, group, self.state.setdefault(position, {}))
                position += 1

    def _update(self, p: Array, g: Array, group: Group, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """{"state": {position: {name: array or number}}, "param_groups": hyper-parameters and positions}."""
        groups, position = [], 0
        for group in self.param_groups:
            count = len(group["params"])
            groups.append({**group, "params": list(range(position, position + count))})
            position += count
        return {"state": {k: dict(v) for k, v in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what state_dict returned.

        Raises ValueError where the groups differ in size.
        """
        sizes = [len(g["params"]) for g in self.param_groups]
        given = [len(g["params"]) for g in state["param_groups"]]
        if sizes != given:
            raise ValueError(f"load_state_dict: groups of {given} parameters for an optimizer with {sizes}")
        for own, new in zip(self.param_groups, state["param_groups"], strict=True):
            own.update({k: v for k, v in new.items() if k != "params"})
        every = [p for group in self.param_groups for p in group["params"]]
        self.state = {
            int(k): {name: to_device(v, every[int(k)].device).copy() if is_array(v) else v for name, v in entry.items()}
            for k, entry in state["state"].items()
        }


class SGD(Optimizer):
    """v ← momentum·v + (g + weight_decay·p), p ← p − lr·v (Sutskever et al. 2013 in PyTorch's form).

    Args:
        params: parameters or groups.
        lr: step size; momentum, weight_decay: as in the formula.

    Raises ValueError for negative values or no parameters.

    >>> p = Tensor(np.array([1.0]), requires_grad=True)
    >>> (p * p).backward()
    >>> SGD([p], lr=0.25).step()
    >>> p.item()
    0.5
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _update(self, p: Array, g: Array, group: Group, state: dict[str, Any]) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        if momentum and "momentum_buffer" not in state:
            state["momentum_buffer"] = module_of(p).zeros_like(p)
        v = state["momentum_buffer"] if momentum else None
        kernels.run("sgd_step", p, g, v, lr=lr, momentum=momentum, weight_decay=decay)


class Adam(Optimizer):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← p − lr·m̂/(√v̂ + eps), with m̂ = m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ).

    Kingma & Ba 2015, algorithm 1; weight_decay·p is added to g, as in PyTorch's Adam.

    Args:
        params: parameters or groups.
        lr: step size; betas, eps, weight_decay: as in the formula.

    Raises ValueError for values out of range or no parameters.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, p: Array, g: Array, group: Group, state: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, exp_avg=module_of(p).zeros_like(p), exp_avg_sq=module_of(p).zeros_like(p))
        state["step"] += 1
        kernels.run(
            "adam_step",
            p,
            g,
            state["exp_avg"],
            state["exp_avg_sq"],
            lr=group["lr"],
            betas=group["betas"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            step=state["step"],
        )


def paper_groups(module: Module, lr: float, weight_decay: float) -> list[Group]:
    """Parameter groups by the FCN paper's rule: biases learn twice as fast and do not decay (Long et al. 2015, §4.3).

    Fixed parameters (requires_grad=False) are left out.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    weights = [p for name, p in trained if not name.endswith("bias")]
    biases = [p for name, p in trained if name.endswith("bias")]
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": biases, "lr": 2 * lr, "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


class Schedule:
    """Sets every group's lr to initial_lr · factor(steps taken)."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.steps = 0

    def factor(self, steps: int) -> float:
        """What the initial learning rate is multiplied with after so many steps."""
        raise NotImplementedError

    def step(self) -> None:
        """One training step was made."""
        self.steps += 1
        self._apply()

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.factor(self.steps)

    def state_dict(self) -> dict[str, int]:
        """{"steps": steps taken}."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from what state_dict returned."""
        self.steps = int(state["steps"])
        self._apply()


class PolyLR(Schedule):
    """lr = initial · (1 − step/total_steps)^power (Chen et al. 2017, DeepLab, §4.1).

    Raises ValueError for total_steps below 1.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, power: float = 0.9) -> None:
        if total_steps < 1:
            raise ValueError(f"PolyLR: total_steps is {total_steps}; at least 1 is needed")
        super().__init__(optimizer)
        self.total_steps, self.power = total_steps, power

    def factor(self, steps: int) -> float:
        return float((1 - min(steps, self.total_steps) / self.total_steps) ** self.power)


class StepLR(Schedule):
    """lr = initial · gamma^⌊step/step_size⌋.

    Raises ValueError for step_size below 1.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size is {step_size}; at least 1 is needed")
        super().__init__(optimizer)
        self.step_size, self.gamma = step_size, gamma

    def factor(self, steps: int) -> float:
        return float(self.gamma ** (steps // self.step_size))
