"""einsum: sums of products named by index letters, made of the functions of this room.

Two operands at a time: each is brought into the order (batch, kept, summed), so that the sum over the letters that both
have and nobody needs any more is one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minifcn.array import Array, module_of
from minifcn.autograd import Tensor
from minifcn.functional._checks import floats, tensor
from minifcn.functional.arithmetic import expand
from minifcn.functional.products import matmul
from minifcn.functional.reduce import sum
from minifcn.functional.shape import index, one_dtype, permute, reshape

Letters = tuple[str, ...]


def einsum(equation: str, *operands: Tensor | Array) -> Tensor:
    """The sum of products that `equation` names, e.g. "nchv,oc->nohv": each letter an axis, as in NumPy and PyTorch.

    Args:
        equation: for each operand its axes' letters, then "->" and those of the result; letters that the result does
            not have are summed over. Without "->" the result has the letters that occur once, in alphabetical order.
            "…" or "..." stands for axes that broadcast; a letter twice in one operand takes its diagonal.
        operands: float tensors (of mixed dtypes the widest counts). Several are multiplied from left to right, without
            a search for the cheapest order. PyTorch's other form, with lists of numbers instead of letters, is not
            known here.

    Raises:
        ValueError: an equation that cannot be read or does not fit the operands. TypeError: integers only.

    >>> einsum("ij,jk->ik", Tensor([[1.0, 2.0]]), Tensor([[3.0], [4.0]]))
    Tensor([[11.]], dtype=float32)
    """
    if not isinstance(equation, str):
        raise TypeError(f"einsum: equation is a {type(equation).__name__}; a string such as 'ij,jk->ik' is needed")
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    xs = [tensor("einsum", f"operand {k}", x) for k, x in enumerate(given)]
    if not xs:
        raise ValueError("einsum: no operands; at least one is needed")
    xs = one_dtype("einsum", xs)
    floats("einsum", operands=xs[0])
    inputs, output = _parse(equation, xs)
    sizes = _sizes(equation, xs, inputs)
    parts = [_diagonal(_stretched(x, own, sizes), own) for x, own in zip(xs, inputs, strict=True)]
    x, letters = parts[0]
    for k, (y, others) in enumerate(parts[1:], start=2):
        needed = {*output, *(c for _, later in parts[k:] for c in later)}
        x, letters = _product(x, letters, y, others, needed, sizes)
    summed = tuple(k for k, c in enumerate(letters) if c not in output)
    if summed:
        x, letters = sum(x, summed), tuple(c for c in letters if c in output)
    return permute(x, tuple(letters.index(c) for c in output)) if letters != output else x


def _parse(equation: str, xs: Sequence[Tensor]) -> tuple[list[Letters], Letters]:
    """The axes of every operand and of the result. The axes that "…" stands for get the names "0", "1", … from the
    last one backwards."""
    text = equation.replace("...", "…").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    for term in [*terms, right]:
        rest = term.replace("…", "", 1)
        if not (rest == "" or (rest.isascii() and rest.isalpha())):
            raise ValueError(f"einsum: {term!r} in {equation!r}; letters and at most one '...' are needed")
    if len(terms) != len(xs):
        raise ValueError(f"einsum: {equation!r} names {len(terms)} operands and there are {len(xs)}")
    inputs, widest = [], 0
    for k, (term, x) in enumerate(zip(terms, xs, strict=True)):
        named = len(term.replace("…", ""))
        hidden = x.ndim - named
        if hidden < 0 or (hidden and "…" not in term):
            raise ValueError(
                f"einsum: {term!r} in {equation!r} names {named} axes and operand {k} has shape {x.shape}; "
                f"one letter for each axis is needed"
            )
        inputs.append(_spelled(term, hidden))
        widest = max(widest, hidden) if "…" in term else widest
    every = [c for term in inputs for c in term]
    if arrow:
        output = _spelled(right, widest)
    else:
        once = sorted(c for c in set(every) if every.count(c) == 1 and c.isalpha())
        output = (*_spelled("…", widest), *once)
    for c in output:
        if output.count(c) > 1 or (c not in every and c.isalpha()):
            fault = "is twice in the result" if output.count(c) > 1 else "is in no operand"
            raise ValueError(f"einsum: {c!r} of {equation!r} {fault}")
    return inputs, output


def _spelled(term: str, hidden: int) -> Letters:
    """The names of a term's axes; "…" becomes `hidden` numbers."""
    before, dots, after = term.partition("…")
    return (*before, *(str(k) for k in reversed(range(hidden)) if dots), *after)


def _sizes(equation: str, xs: Sequence[Tensor], inputs: list[Letters]) -> dict[str, int]:
    """The size of every letter, where 1 stretches to any other."""
    sizes: dict[str, int] = {}
    for k, (x, letters) in enumerate(zip(xs, inputs, strict=True)):
        for c in letters:
            along = {n for other, n in zip(letters, x.shape, strict=True) if other == c}
            if len(along) > 1:
                raise ValueError(
                    f"einsum: axis {c!r} is twice in operand {k} of {equation!r}, with the sizes {sorted(along)}; a "
                    f"diagonal needs equal ones"
                )
        for c, n in zip(letters, x.shape, strict=True):
            known = sizes.setdefault(c, n)
            if known != n and 1 not in (known, n):
                raise ValueError(
                    f"einsum: axis {c!r} of {equation!r} has size {n} in operand {k} and {known} before; equal sizes "
                    f"or 1 are needed"
                )
            sizes[c] = n if known == 1 else known
    return sizes


def _stretched(x: Tensor, letters: Letters, sizes: dict[str, int]) -> Tensor:
    return expand(x, tuple(sizes[c] for c in letters))


def _diagonal(x: Tensor, letters: Letters) -> tuple[Tensor, Letters]:
    """x with one axis for each letter: "ii" takes x[i, i]."""
    xp = module_of(x.data)
    while len(set(letters)) < len(letters):
        first = next(k for k, c in enumerate(letters) if letters.count(c) > 1)
        second = letters.index(letters[first], first + 1)
        along = xp.arange(x.shape[first])
        others = tuple(k for k in range(x.ndim) if k not in (first, second))
        x = index(permute(x, (first, second, *others)), (along, along))  # (i, others)
        letters = (letters[first], *(letters[k] for k in others))
    return x, letters


def _product(
    x: Tensor, of_x: Letters, y: Tensor, of_y: Letters, needed: set[str], sizes: dict[str, int]
) -> tuple[Tensor, Letters]:
    """x·y summed over the letters that nobody needs any more, as one batched matrix product."""
    for_nobody = [
        tuple(k for k, c in enumerate(a) if c not in b and c not in needed) for a, b in ((of_x, of_y), (of_y, of_x))
    ]
    x, of_x = (sum(x, for_nobody[0]) if for_nobody[0] else x), tuple(c for c in of_x if c in of_y or c in needed)
    y, of_y = (sum(y, for_nobody[1]) if for_nobody[1] else y), tuple(c for c in of_y if c in of_x or c in needed)
    batch = [c for c in of_x if c in of_y and c in needed]
    inner = [c for c in of_x if c in of_y and c not in needed]
    rows, columns = [c for c in of_x if c not in of_y], [c for c in of_y if c not in of_x]

    def matrix(t: Tensor, letters: Letters, first: list[str], second: list[str]) -> Tensor:
        order = tuple(letters.index(c) for c in (*batch, *first, *second))
        return reshape(permute(t, order), size(batch), size(first), size(second))

    def size(letters: list[str]) -> int:
        return math.prod(sizes[c] for c in letters)

    z = matmul(matrix(x, of_x, rows, inner), matrix(y, of_y, inner, columns))  # (batch, rows, columns)
    result = (*batch, *rows, *columns)
    return reshape(z, tuple(sizes[c] for c in result)), result
