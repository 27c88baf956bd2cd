"""The tape by hand: differentiate f(w) = ‖relu(x ∗ w)‖² on paper, with a tape that fits on a page, and with minifcn.

Run it: python examples/tape_by_hand.py
"""

import numpy as np

import minifcn as mf
import minifcn.functional as F
from minifcn.autograd import Primitive
from minifcn.lab.tape import trace

pixels, taps = np.array([1.0, 3.0, 2.0, -1.0, 1.0]), np.array([2.0, -1.0])  # small enough to follow with a pencil

# ---- 1. On paper. Row p of X is what score p sees, so the scores are s = X w. Where relu lets s[p] through, it counts:
#      f = Σ_{s>0} s[p]²        ∂f/∂w = 2 Σ_{s>0} s[p]·X[p]        ∂²f/∂w² = 2 Σ_{s>0} X[p]ᵀ X[p]
#      Twice as bright an image makes f four times as large, so (Euler) ⟨∂f/∂x, x⟩ = 2f, and its gradient is 2 ∂f/∂w.
X = np.lib.stride_tricks.sliding_window_view(pixels, len(taps))
s = X @ taps
on = s > 0
paper = s[on] @ s[on], 2 * s[on] @ X[on], *(2 * X[on].T @ X[on]), 4 * s[on] @ X[on]

# ---- 2. A tape. An operation writes down its result, what that was computed from, and for each of these a VJP: how
# the cotangent g of the result (what f changes by when the result changes) becomes the argument's. VJPs are written
# in the same operations, so they go on the tape as well, and can be differentiated themselves.
tape = []


class Value:
    def __init__(self, array, sources=(), vjps=()):
        self.array, self.sources, self.vjps = array, sources, vjps
        tape.append(self)


def backward(y, gy):
    """The cotangents of all that y was computed from. Backwards along the tape, every user of a value comes before it,
    so its cotangent is complete when its own turn comes."""
    cotangents = {y: gy}
    for value in tape[tape.index(y) :: -1]:
        if value in cotangents:
            for source, vjp in zip(value.sources, value.vjps, strict=True):
                g = vjp(cotangents[value])
                cotangents[source] = add(cotangents[source], g) if source in cotangents else g
    return cotangents


def add(a, b):
    return Value(a.array + b.array, (a, b), (lambda g: g, lambda g: g))


# Σ x[p+i]·w[i]·y[p]: the taps i and the scores p play the same part at stride 1, so of the three kernels two are left
def conv(x, w):
    return Value(np.correlate(x.array, w.array), (x, w), (lambda g: conv_transpose(g, w), lambda g: conv(x, g)))


def conv_transpose(y, w):
    return Value(np.convolve(y.array, w.array), (y, w), (lambda g: conv(g, w), lambda g: conv(g, y)))


def mask(x, keep):  # relu, and its gradient too: linear, once it is known what to keep
    return Value(np.where(keep, x.array, 0.0), (x,), (lambda g: mask(g, keep),))


def dot(a, b):
    return Value(a.array @ b.array, (a, b), (lambda g: scale(g, b), lambda g: scale(g, a)))


def scale(number, a):
    return Value(number.array * a.array, (number, a), (lambda g: dot(g, a), lambda g: scale(number, g)))


x, w = Value(pixels), Value(taps)
scores = conv(x, w)
kept = mask(scores, scores.array > 0)
f = dot(kept, kept)
toy = backward(f, Value(np.array(1.0)))
# row k of the second derivative is the gradient of ∂f/∂w[k], which is ⟨∂f/∂w, the k-th unit vector⟩
toy_second = [backward(toy[w], Value(unit))[w].array for unit in np.eye(len(taps))]
toy_mixed = backward(toy[x], Value(pixels))[w].array

# ---- 3. minifcn. A Primitive is a forward function and one VJP for each argument, which says by name what it needs.
# conv2d and relu are Primitives; here is one more:
dot_p = Primitive("dot(a, b) -> y", lambda a, b: np.sum(a * b))
dot_p.defvjp(lambda gy, b: gy * b, lambda gy, a: gy * a)

image = mf.Tensor(pixels.reshape(1, 1, 1, -1), requires_grad=True)  # (N, C, H, W)
weight = mf.Tensor(taps.reshape(1, 1, 1, -1), requires_grad=True)  # (O, C, I, J)
y = F.conv2d(image, weight)
r = F.relu(y)
loss = dot_p(r, r)
full = mf.grad(loss, [loss, r, y, image, weight], create_graph=True)  # of results too, not of leaves only
units = np.eye(len(taps)).reshape(-1, *weight.shape)
full_second = [mf.grad(full[-1], weight, unit, retain_graph=True)[0] for unit in units]
(full_mixed,) = mf.grad(full[-2], weight, image.detach())


def row(values):
    return " ".join(f"{v:g}" for v in np.ravel(values))


print("Forward, and backward from f, by the tape and by minifcn:")
print(f"  {'':<21}{'value':<13}cotangent")
steps = {"f = ⟨kept, kept⟩": f, "kept = relu(scores)": kept, "scores = x ∗ w": scores, "x": x, "w": w}
for (name, value), gradient in zip(steps.items(), full, strict=True):
    print(f"  {name:<21}{row(value.array):<13}{row(toy[value].array):<15}{row(gradient)}")

print("\nOnce and twice differentiated:")
print(f"  {'':<17}{'on paper':<11}{'by the tape':<14}by minifcn")
names = ("f", "∂f/∂w", "∂²f/∂w²", "", "∂⟨∂f/∂x, x⟩/∂w")
by_tape, by_minifcn = (f.array, toy[w].array, *toy_second, toy_mixed), (loss, full[-1], *full_second, full_mixed)
for name, *three in zip(names, paper, by_tape, by_minifcn, strict=True):
    print(f"  {name:<17}{row(three[0]):<11}{row(three[1]):<14}{row(three[2])}")

print("\nThe primitives that minifcn called for this, by lab.trace; dot's VJPs are broadcast_to and mul:")
calls = trace(lambda image, weight: dot_p(*[F.relu(F.conv2d(image, weight))] * 2), image, weight).calls
for phase in ("forward", "backward"):
    print(f"  {phase:<10}{', '.join(call.primitive for call in calls if call.phase == phase)}")
