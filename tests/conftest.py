"""No test may leave a global setting changed behind it."""

from collections.abc import Iterator
from importlib.util import find_spec

import hypothesis
import pytest
from geometries import COUNTS

import minifcn as mf
from minifcn.debugging import is_debugging
from minifcn.kernels import registry

# a slow moment of the machine is no failure
hypothesis.settings.register_profile("minifcn", deadline=None)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile("minifcn")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many random geometries were compared."""
    if COUNTS:
        terminalreporter.section("random geometries")
        if find_spec("torch") is None:
            terminalreporter.write_line("PyTorch is not installed: compared with the definitions in index loops only")
        for what, count in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{what}: {count:,}")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Recording is on, no algorithm is forced and the thread count is what it was, before and after."""
    threads, state = mf.get_num_threads(), mf.random.get_state()
    yield
    mf.random.set_state(state)
    assert mf.is_grad_enabled(), "the test left recording switched off"
    assert not is_debugging(), "the test left debug mode on"
    assert registry._chosen.get() == {}, "the test left an algorithm chosen"
    assert mf.get_num_threads() == threads, "the test left another thread count"
