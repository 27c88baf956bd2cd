"""The geometries that kernels, adjoints, gradients and errors are tested on: those of `minifcn gradcheck`."""

from minifcn.gradcheck.geometries import CONV_CASES, DILATED_POOL, POOL_CASES, ConvCase, PoolCase

__all__ = ["CONV_CASES", "DILATED_POOL", "POOL_CASES", "ConvCase", "PoolCase", "names"]


def names(cases: list[ConvCase] | list[PoolCase]) -> list[str]:
    return [c.name for c in cases]
