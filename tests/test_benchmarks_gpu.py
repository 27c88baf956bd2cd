"""The benchmarks of the GPU as far as they go without one: on the stand-in for CuPy, on tiny layers and networks.

PyTorch stands on the CPU here, where the real thing has both libraries on one GPU. No time that these tests measure is
one of a GPU, and that none is kept or shown as one is among what they test.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation import cupy_standin

import minifcn as mf
from benchmarks import __main__ as bench
from benchmarks import algorithms, gpu, gpu_kernels, gpu_models, kernels, measure, models, tables
from benchmarks.__main__ import main
from minifcn import nn
from minifcn.geometry import ConvGeometry

PEAK = {"sgemm_gflops": 50e3, "tf32_gemm_gflops": 400e3, "copy_gb_per_s": 2500.0}
WITH_TORCH = pytest.param(("torch", "cpu"), marks=pytest.mark.skipif(not find_spec("torch"), reason="no PyTorch"))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for a GPU, on which batches and peaks are small."""
    reason = cupy_standin.reason_unavailable()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(gpu, "SIDE", 8)
    monkeypatch.setattr(gpu, "COPY", 64)
    monkeypatch.setattr(gpu, "BATCH", 0)
    monkeypatch.setattr(gpu, "TORCH", "cpu")
    monkeypatch.setitem(gpu.SYNCHRONIZE, "torch", lambda: None)
    monkeypatch.setattr(kernels, "as_torch", _copied)
    with cupy_standin.standing_in():
        yield


def _copied(tensor: mf.Tensor) -> Any:
    import torch

    return torch.from_numpy(tensor.numpy())


def conv(channels: int = 32) -> kernels.Layer:
    return kernels.Layer(nn.Conv2d(channels, channels, 3, padding=1), (1, channels, 8, 8), differentiable=True)


def few() -> list[Any]:
    up = nn.ConvTranspose2d(3, 3, 4, 2, 1, bias=False)
    return [
        conv(),
        kernels.Layer(up, (2, 3, 5, 4), differentiable=True),
        kernels.Layer(nn.CrossEntropyLoss(), (2, 5, 4, 3), differentiable=True),
        gpu_kernels.Step("SGD with momentum", [(3, 4), (5,)]),
        gpu_kernels.Step("Adam", [(3, 4), (5,)]),
    ]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A few layers, and networks with few channels on small images."""
    monkeypatch.setattr(gpu_kernels, "targets", few)
    monkeypatch.setattr(gpu_kernels, "layers", lambda names: [kernels.Layer(nn.ReLU(), (1, 3, 5, 4), True)])
    for module in (models, gpu_models):
        monkeypatch.setattr(module, "SIZE", (64, 64))
    monkeypatch.setattr(gpu_models, "WORK", (("inference", 1), ("training step", 2)))
    monkeypatch.setattr(gpu_models, "CALLS", 1)
    narrow(monkeypatch)
    threads = mf.get_num_threads()
    mf.set_num_threads(1)  # PyTorch's too: so little work is done sooner by one
    yield
    mf.set_num_threads(threads)


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the networks, and PyTorch's, a sixteenth of their channels."""
    create = mf.models.create
    monkeypatch.setattr(mf.models, "create", lambda name, classes, seed: create(name, classes, seed=seed, width=1 / 16))
    if find_spec("torch"):
        from benchmarks import twins

        twin = twins.twin
        monkeypatch.setattr(twins, "twin", lambda name, classes, narrow: twin(name, classes, 16))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer with a target, and one of a network."""
    for name, channels in (("targets", 2), ("layers", 3)):
        layer = kernels.Layer(nn.ReLU(), (1, channels, 5, 4), True)
        monkeypatch.setattr(gpu_kernels, name, lambda *names, layer=layer: [layer])


# -- kernels


@pytest.mark.parametrize("against", [("cpu",), WITH_TORCH])
def test_rows_of_kernels(emulated: None, tiny: None, against: tuple[str, ...]) -> None:
    rows = list(gpu_kernels.rows((), 2, against, PEAK))
    assert [(row["group"], row["layer"]) for row in rows] == [
        ("targets", "conv 3×3 32→32"),
        ("targets", "transposed conv 4×4 /2 3→3"),
        ("targets", "cross-entropy"),
        ("targets", "SGD with momentum"),
        ("targets", "Adam"),
        ("networks", "ReLU"),
    ]
    for row in rows:
        assert "fault" not in row
        multiplies, calls = "conv" in row["layer"], {"step"} if len(row["input"]) < 3 else {"forward", "both"}
        assert [p for p in gpu.PRECISIONS if p in row] == (["highest", "high"] if multiplies else ["highest"])
        assert set(row["cpu"]) == calls
        for found in (row[p] for p in gpu.PRECISIONS if p in row):
            assert found["error_to_reference"] < 5e-3
            assert found.get("error_to_torch", 0) < 5e-3
            assert found["percent_of_roofline"] > 0
            for what in calls:
                assert found[what]["minifcn"]["median_s"] > 0
                assert ("ratio" in found[what]) == ("torch" in found[what]) == ("torch" in against)
                over = row["cpu"][what]["median_s"] / found[what]["minifcn"]["median_s"]
                assert found[what]["speed_up"] == pytest.approx(over)
    first = rows[0]
    assert "conv2d implicit" in first["highest"]["algorithms"]
    assert "conv2d tensor_cores" in first["high"]["algorithms"]
    assert first["highest"]["error_to_reference"] < 1e-5 < first["high"]["error_to_reference"]
    assert first["gflop"] == 2 * 32 * 32 * 9 * 64 / 1e9
    assert rows[4]["gbyte"] == 7 * 4 * 17 / 1e9


def test_a_row_that_fails_does_not_stop_the_others(emulated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "targets", lambda: [conv(), kernels.Layer(nn.ReLU(), (1, 3, 4, 4), True)])
    monkeypatch.setattr(gpu_kernels, "layers", lambda names: [])
    monkeypatch.setitem(gpu_kernels.TO_REFERENCE, "high", 0.0)
    failed, other = gpu_kernels.rows((), 1, (), PEAK)
    assert "by channel_sum cuda, conv2d tensor_cores," in failed["fault"]
    assert "highest" in failed
    assert "high" not in failed
    assert "fault" not in other


def test_targets_are_of_the_sizes_that_they_were_set_for(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch)
    found = {(work.name, work.x_shape) for work in gpu_kernels.targets()}
    for images in (1, 16):
        assert ("conv 3×3 512→512", (images, 512, 14, 14)) in found
        assert ("conv 3×3 3→64", (images, 3, 224, 224)) in found
        assert ("max pool 2×2 /2", (images, 64, 224, 224)) in found
    assert ("transposed conv 16×16 /8 21→21", (4, 21, 45, 60)) in found
    assert ("transposed conv 4×4 /2 21→21", (1, 21, 23, 30)) in found
    assert ("cross-entropy", (4, 21, 360, 480)) in found
    assert {name for name, _ in found} >= {"batch norm", "ReLU", "SGD with momentum", "Adam"}


def test_a_row_on_the_cpu_and_memory_that_pytorch_shares() -> None:
    torch = pytest.importorskip("torch")
    row = kernels._row(conv(4), 1, ("torch",), {"sgemm_gflops": 100.0, "copy_gb_per_s": 20.0})
    assert row["error_to_torch"] < 1e-5
    assert set(row["forward"]) == set(row["both"]) == {"minifcn", "torch", "ratio"}
    tensor = mf.Tensor(np.zeros(3, np.float32), requires_grad=True)
    kernels.as_torch(tensor).add_(1)
    assert tensor.numpy().tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="kernels: x differs from PyTorch by 5.0e-01; not timed"):
        kernels.error_to_torch("x", [tensor], [torch.full((3,), 2.0)])


# -- networks


def test_rows_of_networks(emulated: None, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    against = ("torch", "cpu") if find_spec("torch") else ("cpu",)
    held = {f"{what} {images}": {"peak_reserved_gb": 1.0} for what, images in gpu_models.WORK}
    monkeypatch.setattr(gpu_models, "_peaks", lambda name, library, precision: held)
    rows = list(gpu_models.rows(("fcn8s_resnet18",), 1, against, PEAK))
    assert [(row["what"], row["images"]) for row in rows] == list(gpu_models.WORK)
    for row in rows:
        assert "fault" not in row
        assert ("cpu" in row) == (row["images"] == 1)
        for precision in gpu.PRECISIONS:
            found = row[precision]
            assert found["minifcn"]["peak_reserved_gb"] == 1.0
            assert ("ratio" in found) == ("torch" in against)
            assert ("logits_relative_error" in found) == ("torch" in against and row["what"] == "inference")
            assert ("of_direct_at_gemm_peak" in found) == (row["what"] == "inference")
            assert ("speed_up" in found) == ("cpu" in row)


def test_memory_is_that_of_the_pool(emulated: None, tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    gpu_models.peaks("fcn8s_resnet18", "minifcn", "highest")
    forward, step = (held["peak_reserved_gb"] for held in json.loads(capsys.readouterr().out).values())
    assert 0 < forward < step


# -- timing


def test_a_batch_lasts_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock on which a call takes a millisecond, and waiting for the device two."""
    now = [0.0]

    def work(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    monkeypatch.setattr(gpu.time, "perf_counter", lambda: now[0])
    contender = gpu.Contender(work(1e-3), work(2e-3), "highest")
    contender.choose_calls()
    assert 8 <= contender.calls <= 12
    times = gpu.interleaved({"a": gpu.Contender(work(1e-3), work(0), "highest")}, 3)
    assert times["a"] == pytest.approx([1e-3] * 3)
    quick = gpu.Contender(work(1e-6), work(0), "highest")
    quick.choose_calls()
    assert quick.calls == gpu.MOST_CALLS


def test_both_libraries_have_the_same_precision() -> None:
    torch = pytest.importorskip("torch")
    for name in gpu.PRECISIONS:
        with gpu.precision(name):
            assert mf.get_float32_matmul_precision() == name
            assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (name == "high")
    assert mf.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32


def test_peaks_and_environment(emulated: None) -> None:
    assert set(gpu.peaks(rounds=2)) == set(PEAK)
    found = gpu.environment()
    assert found["emulated"]
    assert found["gpu"] == "CUDA on CPU"
    assert found["versions"]["cuda_runtime"] == "13.0"
    json.dumps(found)


def test_what_nvidia_smi_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu._nvidia_smi("0000:02:00.0") == {}
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.1, 1980 MHz, 1980 MHz, 2619 MHz, 2619 MHz, 700.00 W\n")
    program.chmod(0o755)
    assert gpu._nvidia_smi("0000:01:00.0") == {
        "driver_version": "580.1",
        "clocks.sm": "1980 MHz",
        "clocks.max.sm": "1980 MHz",
        "clocks.mem": "2619 MHz",
        "clocks.max.mem": "2619 MHz",
        "power.limit": "700.00 W",
    }


# -- the command, and what is kept


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results would be kept, and a README beside it."""
    folder = tmp_path / "results"
    folder.mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\n{tables.END}\nafter\n")
    monkeypatch.setattr(measure, "RESULTS", folder)
    monkeypatch.setattr(tables, "RESULTS", folder)
    monkeypatch.setattr(tables, "README", readme)
    return folder


@pytest.fixture
def torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a measurement is complete."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


WORDS = ["kernels", "--device", "cuda", "--rounds", "1"]


def test_emulated_times_are_printed_and_not_kept(
    emulated: None, two: None, torch_is_there: None, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(WORDS) == 0
    out = capsys.readouterr().out
    assert "1×2×5×4" in out
    assert "1×3×5×4" in out
    assert out.splitlines()[-1] == "The GPU was emulated: these are no GPU times, and they are not kept."
    assert list(results.iterdir()) == []


def test_a_file_of_emulated_times_is_refused(
    emulated: None, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert "an emulated GPU gives none" in complaint(capsys, *WORDS, "--against", "cpu", "--out", str(out))
    with pytest.raises(ValueError, match="out.json: measured on an emulated GPU"):
        measure.write(out, "", gpu.environment(), [])
    assert not out.exists()
    path = results / "kernels_cuda.json"
    path.write_text(json.dumps({"environment": gpu.environment(), "rows": []}))
    with pytest.raises(ValueError, match="kernels_cuda.json: measured on an emulated GPU"):
        tables.render()


def test_real_cupy_is_not_taken_for_emulated() -> None:
    pytest.importorskip("cupy")
    assert not gpu.emulated()


def test_what_a_gpu_gave_is_kept(
    emulated: None, two: None, torch_is_there: None, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that is taken for the real thing, as no GPU is needed to keep files."""
    environment = {**gpu.environment(), "emulated": False, "gpu": "a GPU that nobody has"}
    monkeypatch.setattr(gpu, "emulated", lambda: False)
    monkeypatch.setattr(gpu, "environment", lambda: environment)
    assert main(WORDS) == 0
    result = json.loads((results / "kernels_cuda.json").read_text())
    assert result["complete"]
    assert len(result["rows"]) == 2
    assert "a GPU that nobody has" in tables.README.read_text()

    out, rows = results / "mine.json", gpu_kernels.rows

    def stopped(*arguments: Any) -> Iterator[dict[str, Any]]:
        yield next(iter(rows(*arguments)))
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_kernels, "rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        main([*WORDS, "--out", str(out)])
    result = json.loads(out.read_text())
    assert len(result["rows"]) == 1
    assert not result["complete"]
    assert result["command"].endswith("--out FILE")


def test_a_measurement_with_faults_is_not_kept(
    emulated: None, two: None, torch_is_there: None, results: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(gpu, "emulated", lambda: False)
    monkeypatch.setitem(gpu_kernels.TO_REFERENCE, "highest", 0.0)
    assert main(WORDS) == 1
    assert "2 of 2 rows could not be measured" in capfd.readouterr().err
    assert list(results.iterdir()) == []


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "scaling is measured on the CPU; --device cuda is for kernels, models, algorithms" in complaint(
        capsys, "scaling", "--device", "cuda"
    )
    assert "needs --device cuda" in complaint(capsys, "kernels", "--against", "cpu")
    assert "contradict" in complaint(capsys, "kernels", "--against", "nothing", "--against", "torch")
    monkeypatch.setattr(mf, "gpu_status", lambda: (False, "no NVIDIA driver is installed"))
    assert "no GPU can be used: no NVIDIA driver is installed" in complaint(capsys, *WORDS)


def test_a_torch_that_has_no_gpu(emulated: None, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this one has")
    said = complaint(capsys, *WORDS)
    assert "was not built for CUDA or finds no GPU" in said
    assert "or --against cpu" in said


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(mf, "gpu_status", lambda usable=usable: (usable, "a reason"))
        words = ["kernels", "--device", "auto", "--against", "nothing"]
        assert bench._arguments(words, "bench", checkout=False).device == device
        assert bench._arguments(["import", *words[1:]], "bench", checkout=False).device == "cpu"


# -- tables


def times(seconds: float) -> dict[str, float]:
    return {"median_s": seconds, "min_s": seconds, "max_s": seconds}


def compared(ours: float, theirs: float, faster: float) -> dict[str, Any]:
    ratio = {"of_medians": ours / theirs, "min": ours / theirs, "max": ours / theirs}
    return {"minifcn": times(ours), "torch": times(theirs), "ratio": ratio, "speed_up": faster}


def result(rows: list[dict[str, Any]]) -> str:
    versions = {"numpy": "2.4", "cupy": "14.2.0", "cuda_runtime": "13.0", "torch": "2.13.0", "cudnn": 91400}
    environment = {
        "device": "cuda",
        "emulated": False,
        "gpu": "A GPU",
        "nvidia_smi": {"driver_version": "580.1"},
        "processor": "A CPU",
        "threads": 16,
        "versions": versions,
    }
    return json.dumps({"command": "c", "environment": environment, "peaks": PEAK, "complete": True, "rows": rows})


def test_tables_name_the_device_and_show_each_precision(results: Path) -> None:
    layer = {
        "group": "targets",
        "layer": "conv 3×3 3→4",
        "input": "1×3×8×8",
        "gflop": 1.0,
        "highest": {"forward": compared(2e-3, 1e-3, 50), "both": compared(6e-3, 4e-3, 60), "percent_of_roofline": 41.0},
        "high": {"forward": compared(1e-3, 5e-4, 99), "both": compared(3e-3, 1e-3, 98), "percent_of_roofline": 7.0},
    }
    step = {
        "group": "targets",
        "layer": "Adam",
        "input": "17",
        "gflop": 0.0,
        "highest": {"step": compared(1e-3, 2e-3, 30), "percent_of_roofline": 80.0},
    }
    step["highest"]["step"]["ratio"]["max"] = 0.7
    broken = {"group": "networks", "layer": "ReLU", "input": "1×2×3×4", "fault": "RuntimeError: differs"}
    (results / "kernels_cuda.json").write_text(result([layer, step, broken]))
    text = tables.render()
    assert "A GPU, driver 580.1, CuPy 14.2.0, CUDA 13.0, torch 2.13.0, cuDNN 91400; the CPU beside it: A CPU" in text
    assert "50.0 TFLOP/s in float32, 400.0 TFLOP/s in TF32, and a copy within the GPU 2500 GB/s" in text
    assert "| conv 3×3 3→4 | 1×3×8×8 | float32 | 2.000 ms | 2.00 | 6.000 ms | 1.50 | 50 / 60 | 41 % |" in text
    assert "| conv 3×3 3→4 | 1×3×8×8 | TF32 | 1.000 ms | 2.00 | 3.000 ms | 3.00 | 99 / 98 | 7 % |" in text
    assert "| Adam | 17 |  | 1.000 ms | 0.50 |  |  | 30 | 80 % |" in text
    assert "Not measured: ReLU (RuntimeError: differs)." in text
    assert "1 of the 5 ratios differ between the rounds by more than a factor of 1.3." in text
    assert "the networks' 1 layers" in text
    assert "stopped" not in text


def test_a_table_says_that_its_run_was_stopped(results: Path) -> None:
    (results / "kernels_cuda.json").write_text(result([]).replace('"complete": true', '"complete": false'))
    text = tables.render()
    assert "The run was stopped before its end." in text
    assert "the networks' first 0 layers" in text


def test_table_of_networks(results: Path) -> None:
    found = {**compared(5e-3, 4e-3, 110)}
    found["minifcn"] |= {"peak_reserved_gb": 1.5}
    found["torch"] |= {"peak_reserved_gb": 2.25, "peak_allocated_gb": 2.0}
    row = {"model": "net", "what": "inference", "images": 1, "size": [360, 480], "cpu": times(0.55), "highest": found}
    (results / "models_cuda.json").write_text(result([row]))
    cells = "`net` | inference, 1 image 360x480 | float32 | 5.00 ms | 4.00 ms | 1.25 (1.25–1.25) | 0.55 s | 110"
    assert f"| {cells} | 1.50 / 2.25 GB |" in tables.render()


def test_numbers_repeat_only_where_no_channel_sees_it() -> None:
    few, many = kernels.normal((3, 5)), kernels.normal((2, kernels.PERIOD))
    assert np.array_equal(few.reshape(-1), many[0, :15])
    assert np.array_equal(many[0], many[1])


# -- what a machine with a GPU runs


def test_the_script_for_a_gpu_names_what_exists() -> None:
    root = Path(__file__).parents[1]
    script = root / ".ci" / "gpu"
    files = re.findall(r"tests/\w+\.py", script.read_text())
    assert len(set(files)) == 4
    assert all((root / file).is_file() for file in files)
    done = subprocess.run([script, "nothing"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no part nothing; there are tests, sanitizer, kernels, models and algorithms" in done.stderr


def test_every_algorithm_on_a_gpu(
    emulated: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In each precision, tensor cores only where they are allowed; shown as a table, and not kept."""
    geom = ConvGeometry.of_conv((1, 32, 8, 8), (32, 32, 3, 3), (1, 1), (1, 1), (1, 1), 1, "test")
    monkeypatch.setattr(algorithms, "geometries", lambda names: {geom: "networks"})
    assert main(["algorithms", "--device", "cuda", "--rounds", "1"]) == 0
    assert "not kept" in capsys.readouterr().out
    rows = list(algorithms.rows_on_gpu((), 1, (), PEAK))
    found = {(row["products_in"], row["op"]): (row["auto"], set(row["algorithms"])) for row in rows}
    strict = {"implicit", "winograd_f4", "gemm"}
    for op in ("conv2d", "conv_transpose2d", "conv2d_weight"):
        strictly, in_tf32 = ("gemm", "gemm") if op == "conv_transpose2d" else ("implicit", "tensor_cores")
        assert found["float32", op] == (strictly, strict)
        assert found["TF32", op] == (in_tf32, strict | {"tensor_cores"})
    table = tables._algorithms(json.loads(result(rows)))
    assert "| conv2d | 32×8×8 | 32×32×3×3 | 1 | TF32 |" in table
