"""Where tests run (CPU, a GPU, or an emulated one), and that no test leaves a global setting changed behind it."""

import os
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

import hypothesis
import pytest
from emulation import cupy_standin
from geometries import COUNTS

import minifcn as mf
from minifcn.debugging import is_debugging, is_watched
from minifcn.kernels import registry

# a slow moment of the machine is no failure, and all examples of a test may share the device that it runs on
SETTINGS = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture]}
hypothesis.settings.register_profile("minifcn", **SETTINGS)
hypothesis.settings.register_profile("nightly", **SETTINGS, max_examples=20_000)
hypothesis.settings.load_profile("minifcn")

PLACES = ("cpu", "emulated", "cuda")
RAN: Counter[str] = Counter()  # tests that take `device`, by place


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=PLACES,
        action="append",
        help="where those tests run that can run anywhere: cpu, cuda (a GPU) or emulated (the CUDA kernels on the CPU, "
        "see tests/emulation); may be given several times (cpu and emulated)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `device` runs in each place, one that takes `gpu` in each but the CPU; one that takes `device`
    and `kernel`, with each kernel that is there."""
    if "device" not in metafunc.fixturenames:
        return
    places = metafunc.config.getoption("--device") or ["cpu", "emulated"]
    if "gpu" in metafunc.fixturenames:
        places = [place for place in places if place != "cpu"]
    if "kernel" not in metafunc.fixturenames:
        metafunc.parametrize("device", places, indirect=True)
        return
    pairs = [
        (place, kernel)
        for place in places
        for kernel in mf.algorithms(backend="numpy" if place == "cpu" else "cupy")
        if kernel.algorithm != registry.REFERENCE
    ]
    names = [f"{place}-{kernel.op}-{kernel.algorithm}" for place, kernel in pairs]
    metafunc.parametrize(("device", "kernel"), pairs, indirect=["device"], ids=names)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """ "cpu" or "cuda": what to give to `.to`. On a machine with MINIFCN_REQUIRE_GPU=1 a GPU that cannot be used is a
    failure, and with MINIFCN_REQUIRE_EMULATION=1 an emulation that cannot."""
    place = request.param
    if place == "emulated":
        _available(cupy_standin.reason_unavailable(), "MINIFCN_REQUIRE_EMULATION")
        with cupy_standin.standing_in():
            yield "cuda"
    elif place == "cuda":
        usable, reason = mf.gpu_status()
        _available(None if usable else f"no GPU can be used: {reason}", "MINIFCN_REQUIRE_GPU")
        yield "cuda"
    else:
        yield "cpu"
    RAN[place] += 1


@pytest.fixture
def gpu(device: str) -> str:
    """As `device`, for tests of the GPU's backend."""
    return device


def _available(missing: str | None, required: str) -> None:
    if missing is None:
        return
    if os.environ.get(required) == "1":
        pytest.fail(f"{missing}, and {required}=1")
    pytest.skip(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What ran where, and how many random geometries were compared."""
    if RAN:
        terminalreporter.section("devices")
        said = {
            "cpu": "on the CPU",
            "emulated": "on an emulated GPU: the CUDA kernels' own source, compiled by g++ and run on the CPU",
            "cuda": f"on a GPU: {mf.gpu_status()[1]}",
        }
        for place in PLACES:
            terminalreporter.write_line(f"{RAN[place]:,} tests {said[place]}")
    if COUNTS:
        terminalreporter.section("random geometries")
        if find_spec("torch") is None:
            terminalreporter.write_line("PyTorch is not installed: compared with the definitions in index loops only")
        for what, count in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{what}: {count:,}")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Recording is on, no algorithm is forced, and threads and precision are what they were, before and after."""
    threads, state, precision = mf.get_num_threads(), mf.random.get_state(), mf.get_float32_matmul_precision()
    algorithms = registry.algorithms()
    yield
    mf.random.set_state(state)
    assert mf.is_grad_enabled(), "the test left recording switched off"
    assert not is_debugging(), "the test left debug mode on"
    assert not is_watched(), "the test left a watcher"
    assert registry._chosen.get() == {}, "the test left an algorithm chosen"
    assert registry.algorithms() == algorithms, "the test left another list of algorithms"
    assert mf.get_num_threads() == threads, "the test left another thread count"
    assert mf.get_float32_matmul_precision() == precision, "the test left another precision"


@pytest.fixture(scope="module")
def no_learning_curves():
    """They would take half of the time of training; test_training_pictures.py and test_cli.py look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minifcn.training.trainer.learning_curve", lambda path, records: None)
        yield
