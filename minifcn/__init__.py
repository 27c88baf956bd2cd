"""minifcn: fully convolutional networks from scratch on NumPy. The public names, in reading order.

Importing this loads NumPy and nothing else; the rooms further up (models' data, training, the command line) load when
they are first named.
"""

import importlib
from types import ModuleType

from minifcn import functional, random
from minifcn.array import gpu_status
from minifcn.autograd import Tensor, from_dlpack, grad, is_grad_enabled, no_grad, set_grad_enabled
from minifcn.debugging import debug
from minifcn.functional import cat, einsum, stack, where
from minifcn.kernels import algorithms, explain, using
from minifcn.kernels.precision import get_float32_matmul_precision, set_float32_matmul_precision
from minifcn.random import manual_seed
from minifcn.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"
__all__ = [
    "Tensor",
    "from_dlpack",
    "grad",
    "no_grad",
    "set_grad_enabled",
    "is_grad_enabled",
    "debug",
    "cat",
    "stack",
    "where",
    "einsum",
    "using",
    "explain",
    "algorithms",
    "manual_seed",
    "set_num_threads",
    "get_num_threads",
    "set_float32_matmul_precision",
    "get_float32_matmul_precision",
    "gpu_status",
    "functional",
    "random",
    "gradcheck",
    "nn",
    "optim",
    "models",
    "weights",
    "data",
    "training",
    "lab",
]

_LAZY = ("gradcheck", "nn", "optim", "models", "weights", "data", "training", "lab")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"minifcn.{name}")
    raise AttributeError(f"module 'minifcn' has no attribute {name!r}")
