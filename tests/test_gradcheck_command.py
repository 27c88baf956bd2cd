"""`python -m minifcn gradcheck`: the table, its last line, its exit code, and what it says to mistakes."""

import numpy as np
import pytest

import minifcn as mf
from minifcn.autograd import PRIMITIVES, Tensor
from minifcn.cli import main
from minifcn.gradcheck import table as tables
from minifcn.gradcheck.cases import Case, table
from minifcn.kernels import registry


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[str]:
    """The lines that a command prints."""
    assert main(["gradcheck", *words]) == code
    return capsys.readouterr().out.splitlines()


def test_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys)
    assert lines == [*table(), *mf.models.available()]
    assert {"conv2d", "F.conv2d", "Tensor.max", "nn.Linear", "fcn8s_vgg16"} <= set(lines)


def test_an_operation_by_its_name_with_and_without_the_room(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "relu")
    assert {line.split()[0] for line in lines[1:-2]} == {"relu", "F.relu"}
    assert lines[-2].startswith("kink (n): at n coordinates there is no slope")
    assert lines[-1] == "12 checks of 2 operations passed, 2 of them at kinks"
    assert len([line for line in lines if line.endswith("kink (2)")]) == 2
    assert " ".join(lines[0].split()) == "operation case argument order gradient difference error verdict"
    assert max(map(len, lines)) <= 120
    lines = run(capsys, "F.relu", "--order", "1")
    assert lines[-1] == "3 checks of 1 operation passed, 1 of them at kinks"


def test_the_third_derivative(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "F.batch_norm", "--order", "3")
    assert {line.split()[-5] for line in lines[1:-1]} == {"1", "2", "3"}
    assert lines[-1].endswith("checks of 1 operation passed")


def test_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "fcn32s_vgg16", "--order", "1", "--dtype", "float32")
    assert lines[1] == "fcn32s_vgg16, channels × 1/32, two images of 45×38: each parameter"
    assert "features.28.weight" in "".join(lines)
    assert lines[-1].endswith("checks of 1 network passed")
    assert max(map(len, lines)) <= 120


def test_all_covers_every_operation_and_network_family(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FAMILIES", ("fcn16s_decoder_vgg16",))  # the others have their own test
    lines = run(capsys, "all", "--order", "1")
    assert set(table()) <= {line.split()[0] for line in lines}
    assert lines[-1].partition("checks of ")[2].startswith(f"{len(table())} operations and 1 network passed")


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """tanh with the slope of another function."""
    monkeypatch.setattr(PRIMITIVES["tanh"], "_vjps", [lambda gz, z: gz * (1 - z)])


def test_a_failure_is_named_and_counted(capsys: pytest.CaptureFixture[str], wrong: None) -> None:
    lines = run(capsys, "tanh", "--order", "1", code=1)
    assert lines[1].endswith("FAIL")
    assert lines[2].startswith("    worst at (")
    assert lines[-1] == "2 checks of 2 FAILED"


def test_lines_appear_as_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def cases() -> list[Case]:
        return [
            Case("first", lambda x: x * x, (np.ones(2),), ("x",)),
            Case("second", lambda x: 1 / 0, (np.ones(2),), ("x",)),
        ]

    monkeypatch.setattr(tables, "table", lambda: {"op": cases})
    lines: list[str] = []
    with pytest.raises(ZeroDivisionError):
        tables.run("op", 1, say=lines.append)
    assert lines[1].split()[:2] == ["op", "first"]


def test_values_that_are_not_finite_get_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("at 0", lambda x: x.log(), (np.zeros(2),), ("x",))
    monkeypatch.setattr(tables, "table", lambda: {"op": lambda: [case]})
    lines: list[str] = []
    assert tables.run("op", say=lines.append).failed == 1
    assert "f is -inf at (0,); only finite values can be compared" in lines[2]


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """An algorithm for conv2d that supports only 1×1 filters."""
    known = registry._kernels["conv2d", "numpy"]
    monkeypatch.setitem(registry._kernels, ("conv2d", "numpy"), known.copy())  # what was there comes back
    registry.kernel(
        "conv2d", backend="numpy", algorithm="picky", supports=lambda geom: geom.w_hw == (1, 1), limits="a 1×1 filter"
    )(known["gemm"].function)


def test_what_an_algorithm_does_not_support_is_no_failure(capsys: pytest.CaptureFixture[str], picky: None) -> None:
    lines = run(capsys, "conv2d", "--algorithm", "picky", "--order", "1")
    refused = [k for k, line in enumerate(lines[:-1]) if line.endswith(" unsupported")]
    assert refused
    assert all("it needs a 1×1 filter" in lines[k + 1] for k in refused)
    assert any(line.split()[1] == "pointwise" and line.endswith("ok") for line in lines)
    assert lines[-1].endswith(f"; {len(refused)} cases unsupported")
    with pytest.raises(registry.Unsupported), mf.using(conv2d="picky"):
        mf.functional.conv2d(Tensor(np.ones((1, 1, 3, 3))), Tensor(np.ones((1, 1, 2, 2))))


def test_algorithms_by_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    kernel = registry._kernels["relu", "numpy"]["reference"]
    monkeypatch.setitem(
        registry._kernels["relu", "numpy"],
        "reference",
        registry.Kernel(**{**vars(kernel), "function": lambda x: used.append(1) or kernel.function(x)}),
    )
    run(capsys, "F.relu")
    assert not used
    run(capsys, "F.relu", "--algorithm", "conv2d=reference")
    assert not used
    run(capsys, "F.relu", "--algorithm", "conv2d=reference", "--algorithm", "relu=reference")
    assert used
    used.clear()
    run(capsys, "F.relu", "--algorithm", "reference")
    assert used


def test_every_operation_by_its_definition(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "all", "--order", "1", "--algorithm", "reference")
    assert lines[0].startswith("networks are left out")
    assert "operations passed" in lines[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["conv3d"], "there is no operation or network 'conv3d'; did you mean 'conv2d'?"),
        (["fcn8s_vgg61"], "did you mean 'fcn8s_vgg16'?"),
        (["relu", "--algorithm", "gem"], "there is no algorithm 'gem'; did you mean 'gemm'?"),
        (["relu", "--algorithm", "conv2d=gem"], "there is no algorithm 'gem' for conv2d; did you mean 'gemm'?"),
        (["relu", "--algorithm", "convd=gemm"], "no operation 'convd' has algorithms; did you mean 'conv2d'?"),
        (["relu", "--order", "0"], "'0' is no whole number above 0"),
        (["relu", "--dtype", "float16"], "invalid choice: 'float16'"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["gradcheck", *words]) == 2
    text = capsys.readouterr().err
    assert sentence in text
    assert text.count("\n") == 1


def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    if mf.gpu_status()[0]:
        pytest.skip("this machine has a GPU")
    assert main(["gradcheck", "relu", "--device", "cuda"]) == 2
    assert "no GPU can be used" in capsys.readouterr().err
