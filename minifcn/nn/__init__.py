"""Modules and layers, with PyTorch's names for attributes and state."""

from minifcn.nn import init
from minifcn.nn.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    CrossEntropyLoss,
    Dropout,
    Dropout2d,
    Identity,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Upsample,
)
from minifcn.nn.module import Module, ModuleList, Parameter, Sequential

__all__ = [
    "Module",
    "Parameter",
    "Sequential",
    "ModuleList",
    "Conv2d",
    "ConvTranspose2d",
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "BatchNorm2d",
    "ReLU",
    "Sigmoid",
    "Dropout",
    "Dropout2d",
    "Linear",
    "Identity",
    "Upsample",
    "CrossEntropyLoss",
    "init",
]
