"""The derivative of a fused kernel, at every order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minifcn.autograd import Primitive, Tensor, grad, is_grad_enabled

alias_p = Primitive("alias(x) -> y", lambda x: x)
alias_p.defvjp(lambda gy: gy)


def derivative_of(
    f: Callable[..., Tensor], args: Sequence[Tensor], gy: Tensor, fused: Callable[[], list[Tensor]]
) -> list[Tensor]:
    """The cotangents of args of a primitive that computes f(*args) in one go.

    At first order, `fused` computes them in one go too. When they are to be differentiated again (create_graph), they
    come from walking f, written in elementary operations. The arguments enter through aliases, made now, so that the
    walk ends there and does not go on into whatever they were computed from.
    """
    if not is_grad_enabled():
        return fused()
    starts = [alias_p(a) if a.requires_grad else Tensor(a.data, requires_grad=True) for a in args]
    return list(grad(f(*starts), starts, gy, create_graph=True, allow_unused=True))
