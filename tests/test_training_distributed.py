"""Several processes with one global batch compute what one process computes: with threads in the place of processes,
and under mpiexec where mpi4py is installed.

Nothing here waits for ever: what has not ended after `LIMIT` seconds shows where its threads are, and fails."""

import faulthandler
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
import minifcn.functional as F
from benchmarks import ranks as benchmark
from benchmarks.tables import _ranks
from minifcn import nn, random
from minifcn.data import IGNORE, Batch, Loader, Sample, Shapes
from minifcn.training import TrainConfig, World, load_weights
from minifcn.training.checkpoint import read
from minifcn.training.diagnostics import FirstSteps
from minifcn.training.distributed import FailedElsewhere, MpiWorld, find_world, launched
from minifcn.training.interrupt import Interrupted, signal_of
from minifcn.training.shares import evaluate_together, shares, sum_gradients

ROOT = Path(__file__).parents[1]
LIMIT = 100


class ThreadWorld(World):
    """A rank that is a thread."""

    def __init__(self, rank, size, meeting, table):
        self.rank, self.size, self._meeting, self._table = rank, size, meeting, table

    def gather(self, array):
        self._table[self.rank] = np.array(array)
        self._meeting.wait()
        every = np.stack(self._table)
        self._meeting.wait()
        return every

    def sum(self, array):
        array[...] = self.gather(array).sum(axis=0)

    def texts(self, own):
        return self.gather(np.array(own, "U100")).tolist()


def on_ranks(size, work):
    """What work(world) returns or raises on each of `size` ranks."""
    meeting, table, results = threading.Barrier(size, timeout=30), [None] * size, [None] * size

    def run(rank):
        try:
            results[rank] = work(ThreadWorld(rank, size, meeting, table))
        except BaseException as error:
            results[rank] = error
            if not isinstance(error, KeyboardInterrupt | FailedElsewhere | OSError):
                meeting.abort()

    ranks = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(LIMIT)
        if thread.is_alive():
            faulthandler.dump_traceback(sys.__stderr__)
            pytest.fail(f"a rank has not ended after {LIMIT} seconds")
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, OSError):
            raise result
    return results


def parts(count, size):
    return [slice(count * rank // size, count * (rank + 1) // size) for rank in range(size)]


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


# -- the global batch


def whole_batch(seed=0):
    """Five images that weigh very differently: the first is all void, the second has one valid pixel."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (5, 6, 7))
    labels[0], labels[1], labels[2:, 3] = IGNORE, IGNORE, IGNORE
    labels[1, 2, 2] = 1
    return Batch(rng.standard_normal((5, 3, 6, 7)), labels, tuple("abcde"))


def network(norm=True):
    mf.manual_seed(7)
    layers = [nn.Conv2d(3, 4, 3, padding=1), *([nn.BatchNorm2d(4)] if norm else []), nn.ReLU(), nn.Conv2d(4, 3, 1)]
    return nn.Sequential(*layers).to("float64")


def state(module):
    return {
        **{name: p.grad.numpy().copy() for name, p in module.named_parameters()},
        **{name: buffer.numpy().copy() for name, buffer in module.named_buffers()},
    }


@pytest.mark.parametrize("norm", [False, True], ids=["without norm", "synchronised norm"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_gradients_add_up_to_those_of_the_whole_batch(size, weighted, norm):
    batch = whole_batch()
    weights = np.array([0.5, 4.0, 1.25]) if weighted else None
    class_weights = None if weights is None else mf.Tensor(weights)
    whole = network(norm)
    loss = F.cross_entropy(whole(mf.Tensor(batch.images)), batch.labels, class_weights, ignore_index=IGNORE)
    loss.backward()
    modules = [network(norm) for _ in range(size)]

    def work(world):
        part, module = parts(5, size)[world.rank], modules[world.rank]
        if size > 1:
            nn.synchronize_batch_norm(module, world.gather)
        own = Batch(batch.images[part], batch.labels[part], batch.names[part])
        (share,) = shares(world, iter([own]), 3, weights)
        _, loss, _ = share.forward(module, class_weights)
        loss.backward()
        sum_gradients(world, module, share)
        return float(world.gather(np.array(loss.item())).sum())

    for value, module in zip(on_ranks(size, work), modules, strict=True):
        close(value, loss.item())
        for name, array in state(whole).items():
            close(state(module)[name], array)


def test_running_statistics_of_each_rank_become_their_mean():
    """By how many images each had: 1, 2 and 2 of 5."""
    batch, modules = whole_batch(), [network() for _ in range(3)]

    def work(world):
        part = parts(5, 3)[world.rank]
        own = Batch(batch.images[part], batch.labels[part], batch.names[part])
        (share,) = shares(world, iter([own]), 3)
        _, loss, _ = share.forward(modules[world.rank])
        before = modules[world.rank][1].running_var.numpy().copy()
        loss.backward()
        sum_gradients(world, modules[world.rank], share)
        return before

    own = on_ranks(3, work)
    expected = (own[0] + 2 * own[1] + 2 * own[2]) / 5
    assert not np.allclose(own[0], own[1])
    for module in modules:
        close(module[1].running_var, expected)
        assert module[1].num_batches_tracked.item() == 1


class Sizes:
    """Images whose sizes differ."""

    classes, num_classes = ("a", "b"), 2
    palette = np.zeros((2, 3), np.uint8)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        h, w = 4 + index, 9 - index
        image = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        return Sample(image, rng.integers(0, 2, (h, w)).astype(np.uint8), str(index))


@pytest.mark.parametrize("size", [2, 3])
def test_shares_are_parts_of_the_batches_of_one_process(size):
    """In order, augmentation and padding."""

    def flip(sample, rng):
        return sample if rng.random() < 0.5 else Sample(sample.image[:, ::-1], sample.labels[:, ::-1], sample.name)

    def loader(part=(0, 1)):
        return Loader(Sizes(), 4, shuffle=True, augment=flip, seed=3, drop_last=True, part=part)

    def work(world):
        return list(shares(world, loader((world.rank, size)).epoch(5), 2))

    ranks = on_ranks(size, work)
    for number, batch in enumerate(loader().epoch(5)):
        of_all = [rank[number] for rank in ranks]
        for field in ("images", "labels"):
            joined = np.concatenate([getattr(share.batch, field) for share in of_all])
            np.testing.assert_array_equal(joined, getattr(batch, field))
        assert sum((share.batch.names for share in of_all), ()) == batch.names
        assert [share.first for share in of_all] == [4 * rank // size for rank in range(size)]
        pixels = [int((batch.labels == k).sum()) for k in (0, 1)]
        assert {(share.count, share.weight, *share.pixels) for share in of_all} == {(4, float(sum(pixels)), *pixels)}


def test_a_batch_too_small_for_the_processes():
    with pytest.raises(ValueError, match="a batch of 2 images for 3 processes"):
        Loader(Sizes(), 2, part=(0, 3))
    with pytest.raises(ValueError, match="a batch of 2 images for 3 processes"):
        Loader(Sizes(), 4, part=(0, 3))  # the last one


def test_dropout_depends_on_the_place_in_the_batch():
    x = mf.Tensor(np.ones((5, 3, 4, 4), np.float32))
    for drop in (F.dropout, F.dropout2d):
        mf.manual_seed(1)
        whole, after = drop(x).numpy(), random.get_state()
        for part in parts(5, 3):
            mf.manual_seed(1)
            with random.part(part.start, part.stop - part.start, 5):
                np.testing.assert_array_equal(drop(x[part]).numpy(), whole[part])
            assert random.get_state() == after
    with random.part(0, 2, 4), pytest.raises(ValueError, match="3 random words for 2 items"):
        F.dropout(mf.Tensor(np.ones(3, np.float32)))


def test_validation_is_shared():
    def model():
        return mf.models.create("fcn32s_resnet18", num_classes=6, width=0.0625, seed=0)

    for count, size in ((5, 2), (1, 3)):  # the last rank has fewer images, or none
        scenes = Shapes(count=count, size=(32, 32), seed=1)
        alone, loss = evaluate_together(World(), model(), scenes)
        models = [model() for _ in range(size)]
        for matrix, own_loss in on_ranks(size, lambda world: evaluate_together(world, models[world.rank], scenes)):  # noqa: B023
            np.testing.assert_array_equal(matrix.counts, alone.counts)
            close(own_loss, loss, 1e-6)


@pytest.mark.parametrize("answers", [(0, 0, 0, 0), (0, 0, 0, 1)], ids=["one class", "another on the last rank"])
def test_notes_on_the_first_steps_are_on_the_whole_batch(answers):
    """Rank 0 of three has one image, which is all void; by itself it would never have seen a step."""
    labels = np.zeros((4, 6, 6), np.int64)
    labels[2:], labels[0] = 1, IGNORE
    images = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
    losses = np.resize([2.0, 2.5, 2.25], 12)

    def notes(part, gather=None):
        module = nn.Conv2d(3, 2, 1)
        optimizer = mf.optim.SGD(module.parameters(), lr=1e-4)
        watch = FirstSteps(module, optimizer, steps=len(losses), gather=gather)
        for loss in losses:
            scores = module(mf.Tensor(images[part]))
            scores.sum().backward()
            shown = scores.numpy().copy()
            for image, answer in zip(shown, answers[part], strict=True):
                image[answer] = image.max() + 1
            watch.after_backward(mf.Tensor(loss), mf.Tensor(shown), labels[part])
            optimizer.step()
            optimizer.zero_grad()
        return watch.report()

    whole = notes(slice(None))
    assert any("is answered with class 0, which has 33% of the labels" in note for note in whole) == (answers[3] == 0)
    for found in on_ranks(3, lambda world: notes(parts(4, 3)[world.rank], world.gather)):
        assert found == whole


# -- batch norm over all processes


@pytest.mark.parametrize("size", [2, 3])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(size):
    rng = np.random.default_rng(0)
    x, upon, upon_gx = (rng.standard_normal((5, 3, 4, 2)) for _ in range(3))
    x[3:] += 2  # parts with very different statistics
    gamma, beta = rng.standard_normal((2, 3))

    def orders(part, gather):
        """y, the gradients, and those of ⟨gradient of x, upon_gx⟩; of this part."""
        leaves = [mf.Tensor(a.copy(), requires_grad=True) for a in (x[part], gamma, beta)]
        mean, var = np.zeros(3), np.ones(3)
        y = F.batch_norm(leaves[0], mean, var, *leaves[1:], training=True, gather=gather)
        loss = (y * y * mf.Tensor(upon[part])).sum()
        fused = mf.grad(loss, leaves)
        y = F.batch_norm(leaves[0], None, None, *leaves[1:], training=True, gather=gather)
        loss = (y * y * mf.Tensor(upon[part])).sum()
        gx, *composed = mf.grad(loss, leaves, create_graph=True)
        second = mf.grad((gx * mf.Tensor(upon_gx[part])).sum(), leaves, allow_unused=True)
        return y, fused, (gx, *composed), second, (mean, var)

    y, fused, composed, second, statistics = orders(slice(None), None)
    ranks = on_ranks(size, lambda world: orders(parts(5, size)[world.rank], world.gather))
    close(np.concatenate([r[0].numpy() for r in ranks]), y)
    for order, whole in ((1, fused), (2, composed), (3, second)):
        close(np.concatenate([r[order][0].numpy() for r in ranks]), whole[0], 1e-11)
        for k in (1, 2):
            of_ranks = [r[order][k] for r in ranks]
            if whole[k] is not None:
                close(np.sum([g.numpy() for g in of_ranks], axis=0), whole[k], 1e-11)
            else:
                assert of_ranks == [None] * size
    for r in ranks:
        for own, of_whole in zip(r[4], statistics, strict=True):
            close(own, of_whole)


def test_synchronised_statistics_beside_a_large_mean():
    """In float32, where x² − mean² would have no digit left."""
    rng = np.random.default_rng(0)
    x = (1e4 + rng.standard_normal((4, 2, 8, 8))).astype(np.float32)
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)

    def work(world):
        own = mf.Tensor(x[parts(4, 2)[world.rank]])
        return F.batch_norm(own, None, None, mf.Tensor(ones), mf.Tensor(zeros), True, gather=world.gather).numpy()

    wide = x.astype(np.float64)
    expected = (wide - wide.mean((0, 2, 3), keepdims=True)) / np.sqrt(wide.var((0, 2, 3), keepdims=True) + 1e-5)
    close(np.concatenate(on_ranks(2, work)), expected, 2e-5)


def test_synchronised_batch_norm_needs_values():
    one = mf.Tensor(np.ones((1, 2, 1, 1)))
    with pytest.raises(ValueError, match="1 value per channel on all processes"):
        F.batch_norm(one, None, None, training=True, gather=lambda a: a[None])
    with pytest.raises(ValueError, match=r"shape \(0, 2, 1, 1\), with gather"):
        F.batch_norm(one[:0], None, None, training=True, gather=lambda a: a[None])


# -- how it ends


@pytest.mark.parametrize(
    ("errors", "ends"),
    [
        ([None, OSError("b")], [FailedElsewhere, OSError]),
        ([OSError("a"), OSError("b")], [OSError, FailedElsewhere]),
        ([None, KeyboardInterrupt()], [Interrupted, KeyboardInterrupt]),
        ([Interrupted(number=15), None, None], [Interrupted] * 3),
        ([OSError("a"), KeyboardInterrupt()], [OSError, FailedElsewhere]),
        ([None, None], [np.ndarray, np.ndarray]),
    ],
)
def test_all_end_when_one_does(errors, ends):
    size = len(errors)
    results = on_ranks(size, lambda world: world.agree(errors[world.rank], [float(world.rank)]))
    assert [type(result) for result in results] == ends
    numbers = {signal_of(result) for result in results if isinstance(result, KeyboardInterrupt)}
    assert numbers <= {15 if size == 3 else signal.SIGINT}
    if ends[0] is np.ndarray:
        np.testing.assert_array_equal(results[0], [[0], [1]])

    def work(world):
        def fail():
            if errors[world.rank] is not None:
                raise errors[world.rank]
            return np.zeros(1)

        return world.together(fail)

    assert [type(result) for result in on_ranks(size, work)] == ends


def test_a_bad_image_ends_all_and_names_it():
    class Bad(Sizes):
        def __getitem__(self, index):
            if index == 5:
                raise OSError("image 5 is damaged")
            return super().__getitem__(index)

    seen = []

    def work(world):
        for share in shares(world, Loader(Bad(), 2, part=(world.rank, 2)).epoch(0), 2):
            seen.append(share.batch.names)

    ends = on_ranks(2, work)
    assert isinstance(ends[0], FailedElsewhere)
    assert "image 5 is damaged" in str(ends[1])
    assert sorted(seen) == [("0",), ("1",), ("2",), ("3",)]  # nobody went on to the third batch


def test_alone_nothing_of_mpi_is_loaded(tmp_path):
    code = (
        "import sys; from minifcn.cli import main; "
        "main(['train', '--scenes', '2', '--val-scenes', '1', '--size', '32', '--width', '0.0625', '--epochs', '1', "
        f"'--batch-size', '2', '--out', {str(tmp_path / 'run')!r}]); print('mpi4py' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PMI", "OMPI"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_what_launchers_tell():
    slurm = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
    assert launched({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"} | slurm) == (1, 2)
    assert launched({"PMIX_RANK": "3"} | slurm) == (3, 4)
    assert launched(slurm) == (0, 1)  # a script, whose one process may be beside others by intention


@pytest.mark.parametrize("rank", [0, 1])
def test_without_mpi4py_rank_0_says_what_to_install(monkeypatch, rank):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_RANK", str(rank))
    monkeypatch.setenv("PMI_SIZE", "2")
    find_world.cache_clear()
    try:
        if rank == 0:
            with pytest.raises(ImportError, match=r'2 processes were started .* pip install "\.\[mpi\]"'):
                find_world()
        else:
            with pytest.raises(FailedElsewhere) as silent:
                find_world()
            assert silent.value.code == 2
    finally:
        find_world.cache_clear()


# -- under mpiexec

MPIEXEC = Path(sys.executable).with_name("mpiexec")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PYTHONPATH with which every process ends after LIMIT seconds at the latest, and says where it was."""
    folder = tmp_path_factory.mktemp("limited")
    code = f"import faulthandler; faulthandler.dump_traceback_later({LIMIT}, exit=True)"
    (folder / "sitecustomize.py").write_text(code)
    return f"{folder}{os.pathsep}{ROOT}"


@pytest.fixture(scope="module")
def ranks(path):
    """Runs a command of `python -m mpi4py` on some ranks; the result has stdout and stderr."""
    missing = None
    if find_spec("mpi4py") is None or not MPIEXEC.is_file():
        missing = 'mpi4py and its mpiexec are not installed; pip install ".[mpi]"'
        if os.environ.get("MINIFCN_REQUIRE_MPI") == "1":
            pytest.fail(f"{missing}, and MINIFCN_REQUIRE_MPI=1")
        pytest.skip(missing)

    def run(size, *words, code=0):
        start = [str(MPIEXEC), "-n", str(size)] if size > 1 else []
        words = [*start, sys.executable, "-m", "mpi4py", *map(str, words)]
        # into files: the end of a pipe comes only when the last process has closed it
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
            ended = True
            try:
                process.wait(LIMIT + 20)
            except subprocess.TimeoutExpired:
                ended = False
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read())
        done = subprocess.CompletedProcess(words, process.returncode, *texts)
        assert ended, f"not ended after {LIMIT + 20} seconds\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    return run


SMALL = ["--size", "32x40", "--scenes", "6", "--val-scenes", "3", "--batch-size", "3", "--lr", "0.01"]
VGG = ["--model", "fcn8s_vgg16", "--width", "0.03125", "--optimizer", "sgd", "--schedule", "constant"]
RECIPE = ["-m", "minifcn", "train", *SMALL, *VGG, "--class-weights", "median", "--epochs"]
NORMED = ["-m", "minifcn", "train", *SMALL, "--width", "0.0625"]


def results(folder):
    """(weights, progress and metrics) that a run left, without times."""
    arrays, about = read(folder / "checkpoint.safetensors", "test")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for entry in (about["progress"], *records):
        entry.pop("seconds")
    return arrays, about, records


def alike(one, other, tolerance):
    for (name, a), (_, b) in zip(sorted(one[0].items()), sorted(other[0].items()), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)
    assert one[1]["progress"]["random"] == other[1]["progress"]["random"]
    for mine, theirs in zip(one[2], other[2], strict=True):
        for key in ("train_loss", "val_loss"):
            np.testing.assert_allclose(mine[key], theirs[key], rtol=tolerance, err_msg=key)


@pytest.fixture(scope="module")
def alone(ranks, tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    ranks(1, *RECIPE, 2, "--out", folder)
    return folder


@pytest.mark.parametrize("size", [2, 3])
def test_training_on_ranks_is_training_alone(ranks, alone, tmp_path, size):
    """With dropout and class weights, in float32, with equal (3) and unequal (2) shares. One rank speaks."""
    done = ranks(size, *RECIPE, 2, "--out", tmp_path / "run")
    alike(results(tmp_path / "run"), results(alone), 2e-5)
    assert len(re.findall("^epoch", done.stdout, re.MULTILINE)) == 2
    assert f"{size} processes share each batch of 3" in done.stdout
    assert done.stderr == ""
    assert {p.name for p in (tmp_path / "run").iterdir()} == {p.name for p in alone.iterdir()}


def test_resumed_by_another_number_of_ranks(ranks, alone, tmp_path):
    ranks(2, *RECIPE, 1, "--out", tmp_path / "run")
    ranks(3, "-m", "minifcn", "train", "--resume", tmp_path / "run", "--epochs", "2")
    alike(results(tmp_path / "run"), results(alone), 2e-5)


def test_synchronised_norm_is_that_of_one_process(ranks, tmp_path):
    ranks(1, *NORMED, "--epochs", 1, "--out", tmp_path / "alone")
    of_all = ranks(2, *NORMED, "--epochs", 1, "--sync-batch-norm", "--out", tmp_path / "run")
    of_each = ranks(2, *NORMED, "--epochs", 1, "--out", tmp_path / "own")
    assert "sees batches of one image" not in of_all.stdout
    assert "larger batches or one norm over all processes (--sync-batch-norm), or keep" in of_each.stdout
    one, synced, own = (results(tmp_path / name)[2][0] for name in ("alone", "run", "own"))
    np.testing.assert_allclose(synced["train_loss"], one["train_loss"], rtol=1e-4)
    assert abs(own["train_loss"] - one["train_loss"]) > 1e-3  # without it, it is another training


@pytest.mark.usefixtures("ranks")  # or skipped
def test_what_is_gathered_has_one_axis_more():
    from mpi4py import MPI

    world = MpiWorld(MPI.COMM_SELF)
    for array in (np.array(1.5), np.array(True), np.arange(6).reshape(2, 3).T):
        every = world.gather(array)
        assert (every.shape, every.dtype) == ((1, *array.shape), array.dtype)
        np.testing.assert_array_equal(every[0], array)


def test_stages_on_ranks_are_stages_alone(ranks, tmp_path):
    """Each stage of all ranks begins with what rank 0 has written of the one before."""
    for size, name in ((1, "alone"), (2, "together")):
        options = [*VGG, "--staged", "--stage-epochs", "1,1", "--model", "fcn16s_vgg16", "--out", tmp_path / name]
        done = ranks(size, "-m", "minifcn", "train", *SMALL, *options)
    assert done.stdout.count("stage 2 of 2: fcn16s_vgg16") == 1
    for stage in ("1-fcn32s_vgg16", "2-fcn16s_vgg16"):
        alike(results(tmp_path / "together" / stage), results(tmp_path / "alone" / stage), 2e-5)
    ranks(2, "-m", "minifcn", "train", "--resume", tmp_path / "together")
    assert len(list((tmp_path / "together").iterdir())) == 4


STOPPED = """
    import os, signal, sys
    from minifcn.cli import main
    from minifcn.training import shares
    from minifcn.training.distributed import find_world
    forward, done = shares.Share.forward, []
    def stopping(self, *given):
        done.append(1)
        if len(done) == int(sys.argv[2]) and find_world().rank == 1:
            os.kill(os.getpid(), signal.Signals[sys.argv[1]])
        return forward(self, *given)
    shares.Share.forward = stopping
    replace = os.replace
    def noted(old, new):
        print(f"rank {find_world().rank} wrote {os.path.basename(new)}", flush=True)
        replace(old, new)
    os.replace = noted
    sys.exit(main(sys.argv[3:]))
"""


def test_stops_and_damage_leave_no_trace(ranks, tmp_path):
    """Ctrl-C on one rank stops all and saves once. Then the newest checkpoint is damaged, and the run goes on from the
    one before; SIGTERM stops it again. In the end it is the undisturbed run to the bit, own norms included."""
    script = tmp_path / "stopped.py"
    script.write_text(textwrap.dedent(STOPPED))
    run, words = tmp_path / "run", [*NORMED[2:], "--epochs", 2, "--checkpoint-every", 2]
    ranks(2, "-m", "minifcn", *words, "--out", tmp_path / "whole")
    done = ranks(2, script, "SIGINT", 3, *words, "--out", run, code=130)
    writers = set(re.findall(r"rank (\d) wrote checkpoint\.safetensors|rank 1 wrote .*", done.stdout))
    assert writers == {"0"}
    assert done.stdout.count("wrote checkpoint.safetensors") == 3  # after step 2, the epoch, and when stopped
    (line,) = done.stderr.strip().splitlines()
    assert re.fullmatch("minifcn: interrupted and saved after step 1 of epoch 2; python -m minifcn train .*", line)

    newest = run / "checkpoint.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    done = ranks(2, script, "SIGTERM", 1, "train", "--resume", run, code=143)
    (note,) = re.findall("^note: .* is damaged: .*", done.stdout, re.MULTILINE)
    assert "going on from checkpoint.previous.safetensors (step 0 of epoch 2), the other one is now" in note
    assert (run / "checkpoint.damaged.safetensors").read_bytes() == damaged
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("minifcn: interrupted by SIGTERM and saved after step 1 of epoch 2; ")

    done = ranks(2, "-m", "minifcn", "train", "--resume", run)
    assert "note: " not in done.stdout
    (arrays, about, records), whole = results(run), results(tmp_path / "whole")
    assert (about, records) == whole[1:]
    for name, array in whole[0].items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_mistakes_are_said_once(ranks, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    for words, sentence in (
        (["--lr", "much"], "--lr: invalid float value: 'much'"),
        (["--lr", "-1"], "lr is -1.0; a number above 0 is needed"),
        (["--out", tmp_path / "run"], "run is not empty, and nothing is overwritten"),
        (["--batch-size", "1", "--out", tmp_path / "new"], "a batch of 1 images for 2 processes"),
    ):
        done = ranks(2, *NORMED, *words, code=2)
        assert done.stdout == ""
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("minifcn: ")
        assert sentence in line
    assert not (tmp_path / "new").exists()


def test_an_image_that_one_rank_cannot_read_ends_the_job_or_is_skipped(ranks, tmp_path):
    """With that rank's sentence, after rank 0 has saved what was learned so far."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for k in range(10):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(tmp_path / "images" / f"{k}.png")
        Image.fromarray(rng.integers(0, 2, (64, 64)).astype(np.uint8)).save(tmp_path / "masks" / f"{k}.png")
    config = TrainConfig(data=f"folder:{tmp_path / 'images'}:{tmp_path / 'masks'}")
    names = [p.name for p in sorted((tmp_path / "images").iterdir())]
    kept = mf.data.open_dataset(config.data, "train")
    order = next(iter(Loader(kept, len(kept), shuffle=True, seed=0).epoch(0))).names
    bad = next(name for name in names if Path(name).stem == Path(order[3]).stem)  # the second batch's second image
    (tmp_path / "images" / bad).write_bytes((tmp_path / "images" / bad).read_bytes()[:200])
    words = ["-m", "minifcn", "train", "--data", config.data, *VGG, "--batch-size", "2", "--lr", "0.01", "--epochs", 1]
    done = ranks(2, *words, "--out", tmp_path / "run", code=2)
    (line,) = done.stderr.strip().splitlines()
    assert bad in line
    assert "stopped by an error and saved after step 1 of epoch 1" in done.stdout
    assert load_weights(tmp_path / "run" / "checkpoint.safetensors")
    # goes on with it skipped, as one process does; every process has counted it
    done = ranks(2, "-m", "minifcn", "train", "--resume", tmp_path / "run", "--bad-images", "skip")
    (line,) = re.findall("^skipped, the next image takes its place: .*", done.stdout, re.MULTILINE)
    assert bad in line
    ranks(1, *words, "--bad-images", "skip", "--out", tmp_path / "alone")
    skipped, one = results(tmp_path / "run"), results(tmp_path / "alone")
    alike(skipped, one, 2e-5)
    assert skipped[2][0]["skipped"] == one[2][0]["skipped"] == 1


ONE_FAILS = """
    import sys
    from minifcn.cli import main
    from minifcn.training import shares
    from minifcn.training.distributed import find_world
    forward = shares.Share.forward
    def failing(self, *given):
        if find_world().rank == 1:
            raise KeyError("a bug")
        return forward(self, *given)
    shares.Share.forward = failing
    sys.exit(main(sys.argv[1:]))
"""


def test_a_rank_that_fails_inside_a_step_ends_the_job(ranks, tmp_path):
    """While the other one waits for it."""
    script = tmp_path / "failing.py"
    script.write_text(textwrap.dedent(ONE_FAILS))
    done = ranks(2, script, *NORMED[2:], "--out", tmp_path / "run", code=2)
    assert done.stderr.strip().splitlines()[-1] == "KeyError: 'a bug'"
    assert done.stderr.count("Traceback") == 1


NAN = """
    import sys
    from minifcn.cli import main
    from minifcn.training import shares
    from minifcn.training.distributed import find_world
    forward, done = shares.Share.forward, []
    def breaking(self, *given):
        done.append(1)
        if len(done) >= 2 and find_world().rank == 1:
            self.batch.images[0, 1, 2, 3] = float("nan")
        return forward(self, *given)
    shares.Share.forward = breaking
    sys.exit(main(sys.argv[1:]))
"""


def test_a_nan_of_another_rank_is_explained(ranks, tmp_path):
    """Though rank 0's own share makes none: and it does not wait for the norms of the one that has stopped at it."""
    script = tmp_path / "breaking.py"
    script.write_text(textwrap.dedent(NAN))
    words = [*NORMED[2:], "--sync-batch-norm", "--epochs", 1]
    done = ranks(2, script, *words, "--out", tmp_path / "run", code=2)
    (line,) = done.stderr.strip().splitlines()
    assert re.match("minifcn: train: the loss is nan in epoch 1, step 2 .*: conv2d: .* NaN", line)


EQUAL = """
    import sys
    import numpy as np
    import minifcn as mf, minifcn.functional as F
    from minifcn import nn
    from minifcn.data import Batch
    from minifcn.training.distributed import World, find_world
    from minifcn.training.shares import shares, sum_gradients

    def trained(world, steps=5):
        mf.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 1)
        ).to("float64")
        if world.size > 1:
            nn.synchronize_batch_norm(module, world.gather)
        optimizer = mf.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        rng = np.random.default_rng(0)
        part = slice(5 * world.rank // world.size, 5 * (world.rank + 1) // world.size)
        batches = [Batch(rng.standard_normal((5, 3, 16, 16)), rng.integers(0, 4, (5, 16, 16)), tuple("abcde"))
                   for _ in range(steps)]
        for share in shares(world, iter([Batch(*(entry[part] for entry in batch)) for batch in batches]), 4):
            _, loss, _ = share.forward(module)
            loss.backward()
            sum_gradients(world, module, share)
            optimizer.step()
            optimizer.zero_grad()
        return np.concatenate([np.asarray(value, np.float64).reshape(-1) for value in module.state_dict().values()])

    world = find_world()
    together, alone = trained(world), trained(World())
    assert (world.gather(together) == together).all(), "ranks differ"
    if world.rank == 0:
        print(abs(together - alone).max())
"""


@pytest.mark.parametrize("size", [2, 3])
def test_five_steps_in_float64(ranks, tmp_path, size):
    """With synchronised norm, dropout and unequal shares: as one process but for the order of the sums, which in
    float64 shows in the 13th digit; and to the bit the same on all ranks."""
    script = tmp_path / "equal.py"
    script.write_text(textwrap.dedent(EQUAL))
    assert float(ranks(size, script).stdout) < 1e-12


@pytest.mark.usefixtures("ranks")  # or skipped
def test_a_whole_network_in_float64(monkeypatch, path):
    """FCN-8s on ResNet-18, by the benchmark of ranks and its table."""
    monkeypatch.setenv("PYTHONPATH", path)
    apart = benchmark.difference(2, "fcn8s_resnet18", 0.0625, "float64")
    assert 0 < apart < 1e-12
    numbers = {"median_s": 0.5, "min_s": 0.5, "max_s": 0.5}
    times = {"of_medians": 1.5, "min": 1.25, "max": 1.75}
    row = {"model": "net", "width": 0.5, "processes": 2, "threads": 1, "step": numbers, "sum_gradients": numbers}
    row |= {"speed_up": times, "speed_up_over_one_thread": times, "difference_float32": 0, "difference_float64": apart}
    environment = {"processor": "p", "threads": 2, "blas": [], "versions": {}}
    table = _ranks({"command": "c", "environment": environment, "rows": [row]})
    assert "| `net` (0.5) | 2 × 1 | 0.500 | 1.50 (1.25–1.75) | 1.50 | 100.0% of a step | 0e+00 |" in table
