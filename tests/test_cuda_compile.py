"""Every CUDA source compiles for every architecture, without a warning or a register spilled; no GPU is needed.

Skipped, with a reason, where CuPy or NVRTC is not installed; with MINIFCN_REQUIRE_NVRTC=1 that is a failure instead.
"""

from __future__ import annotations

import os

import pytest
from emulation import nvrtc
from emulation.nvrtc import ARCHITECTURES, CompileError, compile_for

from minifcn.kernels.cuda.load import Unit, units


@pytest.fixture(autouse=True)
def nvrtc_is_there() -> None:
    reason = nvrtc.reason_unavailable()
    if reason is not None and os.environ.get("MINIFCN_REQUIRE_NVRTC") == "1":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("unit", list(units()), ids=lambda unit: unit.name)
def test_compiles(unit: Unit, architecture: str) -> None:
    usage = compile_for(architecture, unit.code, unit.options, f"{unit.family}.cu")
    assert usage, "no kernels were compiled"
    spilling = {name: u for name, u in usage.items() if u.spilled}
    assert not spilling, f"registers are spilled for sm_{architecture}:\n{nvrtc.table(spilling)}"


FINE = """
extern "C" __global__ void __launch_bounds__(128) fine(const REAL* x, REAL* y) {
    __shared__ REAL a[128];
    a[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = a[127 - threadIdx.x];
}
"""
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024) spilling(const float* x, float* y) {  // 64 registers for each thread
    float a[100];
#pragma unroll
    for (int i = 0; i < 100; i++) a[i] = x[1024 * i + threadIdx.x];
    for (int k = 0; k < 10; k++) {
#pragma unroll
        for (int i = 0; i < 100; i++) a[i] += a[(i + 37) % 100] * x[k];
    }
#pragma unroll
    for (int i = 0; i < 100; i++) y[1024 * i + threadIdx.x] = a[i];
}
"""


def test_says_what_a_kernel_takes() -> None:
    (name, usage), = compile_for("90", FINE, ("-DREAL=double",)).items()  # fmt: skip
    assert name == "fine"
    assert 0 < usage.registers <= 255
    assert usage[1:] == (128 * 8, 0, 0)
    assert "fine " in nvrtc.table({name: usage})


def test_finds_an_error() -> None:
    with pytest.raises(CompileError, match=r'for sm_80:\nplanted\.cu\(7\): error: identifier "y" is undefined'):
        compile_for("80", '#line 7 "planted.cu"\nextern "C" __global__ void f(float* x) { x[0] = y; }')


def test_finds_a_warning() -> None:
    with pytest.raises(CompileError, match=r"for sm_120:\n(?s:.*)planted\.cu\(1\): warning"):
        compile_for("120", 'extern "C" __global__ void f(float* x) { int unused; x[0] = 1; }', name="planted.cu")


def test_finds_a_spill() -> None:
    usage = compile_for("90", SPILLING)["spilling"]
    assert usage.spilled > 0


def test_refuses_what_the_options_forbid() -> None:
    """The options reach the compiler: without REAL there is no such type."""
    with pytest.raises(CompileError, match='"REAL" is undefined'):
        compile_for("90", FINE)
