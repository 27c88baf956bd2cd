"""No test may leave a global setting changed behind it."""

from collections.abc import Iterator

import hypothesis
import pytest

import minifcn as mf
from minifcn.kernels import registry

# a slow moment of the machine is no failure
hypothesis.settings.register_profile("minifcn", deadline=None)
hypothesis.settings.load_profile("minifcn")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Recording is on, no algorithm is forced and the thread count is what it was, before and after."""
    threads, state = mf.get_num_threads(), mf.random.get_state()
    yield
    mf.random.set_state(state)
    assert mf.is_grad_enabled(), "the test left recording switched off"
    assert registry._chosen.get() == {}, "the test left an algorithm chosen"
    assert mf.get_num_threads() == threads, "the test left another thread count"
