"""The laboratory: transposed convolutions computed, drawn and proven; where networks' cells lie; the tape, visible."""

from minifcn.lab.align import Alignment, align, misfits
from minifcn.lab.arithmetic import (
    Checkerboard,
    EquivalentConvolution,
    Phase,
    Relationship,
    checkerboard,
    equivalent_convolution,
    feeding,
    formula,
    image_sizes,
    layer,
    layer_to,
    output_padding,
    overlap,
    phases,
    pytorch_line,
    reached,
    relationship,
)
from minifcn.lab.bilinear import BilinearCheck, bilinear_check, gain, normalized, positions, sample
from minifcn.lab.receptive_field import ReceptiveField, receptive_field, seen
from minifcn.lab.report import explain
from minifcn.lab.trace import Trace, trace
from minifcn.lab.values import bilinear_filter, read_filter, whole_numbers
from minifcn.lab.ways import by_matrix, by_phases, by_zero_insertion, conv_matrix, insert_zeros, scatter

__all__ = [
    "layer",
    "layer_to",
    "output_padding",
    "image_sizes",
    "formula",
    "Relationship",
    "relationship",
    "EquivalentConvolution",
    "equivalent_convolution",
    "Phase",
    "phases",
    "feeding",
    "reached",
    "overlap",
    "Checkerboard",
    "checkerboard",
    "pytorch_line",
    "scatter",
    "conv_matrix",
    "by_matrix",
    "insert_zeros",
    "by_zero_insertion",
    "by_phases",
    "positions",
    "sample",
    "gain",
    "normalized",
    "BilinearCheck",
    "bilinear_check",
    "whole_numbers",
    "bilinear_filter",
    "read_filter",
    "explain",
    "ReceptiveField",
    "receptive_field",
    "seen",
    "Alignment",
    "align",
    "misfits",
    "Trace",
    "trace",
]
