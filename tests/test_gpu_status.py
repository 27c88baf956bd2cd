"""One sentence for each reason why no GPU can be used, with a CuPy that fails as the real one does."""

import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import minifcn as mf
from minifcn import array
from minifcn.training.inference import choose_device


class CUDARuntimeError(RuntimeError):
    """CuPy's, which names the code in its text."""


def raising(error: BaseException) -> Any:
    def raises(*args: Any, **kwargs: Any) -> Any:
        raise error

    return raises


def cupy_with(kernel: Any = None, zeros: Any = lambda *args: [42], **runtime: Any) -> ModuleType:
    module = ModuleType("cupy")
    usual = {
        "getDeviceCount": lambda: 1,
        "driverGetVersion": lambda: 12040,
        "runtimeGetVersion": lambda: 13020,
        "getDeviceProperties": lambda device: {"name": b"A GPU", "major": 8, "minor": 0},
    }
    module.cuda = SimpleNamespace(runtime=SimpleNamespace(**{**usual, **runtime}))
    module.RawKernel = kernel or (lambda code, name: lambda grid, block, args: None)
    module.zeros, module.int32 = zeros, int
    return module


NO_DRIVER = CUDARuntimeError(
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
)
STATES: dict[str, tuple[Any, str]] = {
    "no CuPy": (ModuleNotFoundError("No module named 'cupy'", name="cupy"), r"CuPy is not installed; pip install"),
    "CuPy without a part of it": (
        ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"),
        r"CuPy lacks fastrlock; pip install",
    ),
    "a broken CuPy": (
        OSError("libfoo.so: cannot open"),
        r"CuPy cannot be imported \(OSError: libfoo.so: cannot open\)",
    ),
    "no driver": (
        cupy_with(getDeviceCount=raising(NO_DRIVER), driverGetVersion=lambda: 0),
        r"no NVIDIA driver is installed",
    ),
    "a driver too old": (
        cupy_with(getDeviceCount=raising(NO_DRIVER)),
        r"the driver supports CUDA 12.4 and CuPy needs 13.2; a newer driver is needed, or pip install",
    ),
    "no visible GPU": (
        cupy_with(getDeviceCount=raising(CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"))),
        r"the driver sees no GPU \(cudaErrorNoDevice: .*\); check nvidia-smi and CUDA_VISIBLE_DEVICES",
    ),
    "none at all": (cupy_with(getDeviceCount=lambda: 0), r"the driver sees no GPU; check nvidia-smi"),
    "no NVRTC": (
        cupy_with(kernel=raising(RuntimeError("Failed to find libnvrtc"))),
        r"a GPU is there but cannot run kernels \(RuntimeError: Failed to find libnvrtc\); pip install",
    ),
    "a GPU too old": (
        cupy_with(getDeviceProperties=lambda device: {"name": b"Tesla T4", "major": 7, "minor": 5}),
        r"the Tesla T4 has compute capability 7.5; 8.0 or more is needed$",
    ),
    "a wrong result": (
        cupy_with(zeros=lambda *args: [0]),
        r"a GPU is there but a kernel gave a wrong result; check the driver",
    ),
}


class _Refusing:
    """Refuses to import CuPy, as a finder of modules."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "cupy":
            raise self.error


@pytest.fixture(autouse=True)
def status_is_asked_again():
    array.gpu_status.cache_clear()
    yield
    array.gpu_status.cache_clear()


@pytest.mark.parametrize("state", STATES)
def test_why_no_gpu_can_be_used(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy, sentence = STATES[state]
    if isinstance(cupy, Exception):
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.setattr(sys, "meta_path", [_Refusing(cupy), *sys.meta_path])
    else:
        monkeypatch.setitem(sys.modules, "cupy", cupy)
    usable, reason = mf.gpu_status()
    assert not usable
    assert re.match(sentence, reason), reason
    assert "\n" not in reason
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="device is cuda, but no GPU can be used: "):
        choose_device("cuda")
    with pytest.raises(RuntimeError, match="to: no GPU can be used: "):
        mf.Tensor([1.0]).cuda()


def test_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy_with())
    assert mf.gpu_status() == (True, "A GPU")
    assert choose_device("auto") == choose_device("cuda") == "cuda"
