"""The differentiable functions, under PyTorch's names: check the arguments, make one geometry, call a primitive."""

from minifcn.functional import methods as _methods  # noqa: F401 (gives Tensor its operators)
from minifcn.functional.activation import dropout, dropout2d, log_softmax, relu, sigmoid, softmax
from minifcn.functional.arithmetic import where
from minifcn.functional.conv import conv2d, conv_transpose2d, crop, fold, pixel_shuffle, unfold
from minifcn.functional.einsum import einsum
from minifcn.functional.loss import cross_entropy, nll_loss
from minifcn.functional.normalization import batch_norm, local_response_norm
from minifcn.functional.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_unpool2d
from minifcn.functional.products import linear, matmul
from minifcn.functional.shape import cat, pad, stack
from minifcn.functional.vision import interpolate

__all__ = [
    "conv2d",
    "conv_transpose2d",
    "max_pool2d",
    "max_unpool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "batch_norm",
    "local_response_norm",
    "relu",
    "sigmoid",
    "softmax",
    "log_softmax",
    "cross_entropy",
    "nll_loss",
    "dropout",
    "dropout2d",
    "linear",
    "matmul",
    "einsum",
    "interpolate",
    "pixel_shuffle",
    "unfold",
    "fold",
    "pad",
    "crop",
    "cat",
    "stack",
    "where",
]
