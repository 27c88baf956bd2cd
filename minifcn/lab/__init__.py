"""The laboratory: transposed convolutions computed, drawn and proven; where networks' cells lie; the tape, visible.

Start with `geom = layer(input, kernel, stride, padding)`, or `layer_to(image, …)` where the output is known. Then

    describe(y, w, geom)                            everything at once, as `python -m minifcn tconv` prints it
    formula, relationship, image_sizes              the size
    feeding, reached, phases, overlap               who feeds whom, and how often
    scatter, by_matrix, by_zero_insertion, by_phases, adjoint_sides
                                                    four ways to compute it, and the identity that it is an adjoint by
    checkerboard, bilinear_check                    what becomes of a constant, a ramp, noise
    align(model), receptive_field(layers)           where cells lie, and what they see
    trace(f, *inputs)                               every primitive of a pass

`whole_numbers` and `bilinear_filter` make scores y (N,O,P,Q) and filters w (O,C,I,J) to try. Pictures and the page are
in `minifcn.lab.pictures` and `minifcn.lab.page`.
"""

from minifcn.lab.alignment import Alignment, align, misfits
from minifcn.lab.arithmetic import (
    EquivalentConvolution,
    Phase,
    Relationship,
    equivalent_convolution,
    feeding,
    formula,
    image_sizes,
    layer,
    layer_to,
    output_padding,
    phases,
    pytorch_line,
    reached,
    relationship,
)
from minifcn.lab.bilinear import BilinearCheck, bilinear_check, gain, normalized, positions, sample
from minifcn.lab.overlap import Checkerboard, checkerboard, overlap
from minifcn.lab.report import describe
from minifcn.lab.tape import Trace, trace
from minifcn.lab.values import bilinear_filter, read_filter, whole_numbers
from minifcn.lab.ways import (
    adjoint_sides,
    by_matrix,
    by_phases,
    by_zero_insertion,
    conv_matrix,
    insert_zeros,
    scatter,
)
from minifcn.models.field import ReceptiveField, receptive_field, seen

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
    "adjoint_sides",
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
    "describe",
    "ReceptiveField",
    "receptive_field",
    "seen",
    "Alignment",
    "align",
    "misfits",
    "Trace",
    "trace",
]
