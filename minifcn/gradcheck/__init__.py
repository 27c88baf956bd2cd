"""Proof that derivatives are right, for our functions and for yours: `python -m minifcn gradcheck`, or

>>> import numpy as np
>>> from minifcn.gradcheck import check_grad
>>> [check.verdict for check in check_grad(lambda x: x.exp() * x, [np.array([0.5, -1.0])])]
['ok', 'ok', 'ok']
"""

from minifcn.gradcheck.adjoint import check_adjoint
from minifcn.gradcheck.check import Check, GradientError, check_grad

__all__ = ["check_grad", "check_adjoint", "Check", "GradientError"]
