"""A checkpoint returns every bit, is never half written, and knows which network it belongs to."""

import os

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
import minifcn.nn as nn
from minifcn.training import (
    ModelCard,
    load_checkpoint,
    load_model,
    load_weights,
    save_checkpoint,
    save_weights,
)

CARD = ModelCard("fcn8s_resnet18", 3, {"width": 0.0625}, ("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 128, 9)))


def small_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))


def optimizers(net):
    return {
        "sgd": lambda: mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4),
        "adam": lambda: mf.optim.Adam(net.parameters(), lr=0.1 + 0.2),
    }


def step(net, optimizer, seed):
    rng = np.random.default_rng(seed)
    x = mf.Tensor(rng.standard_normal((2, 3, 5, 6)).astype(np.float32))
    optimizer.zero_grad()
    F.cross_entropy(net(x), rng.integers(0, 3, (2, 5, 6))).backward()
    optimizer.step()


def bits(net):
    return {key: np.asarray(value).tobytes() for key, value in net.state_dict().items()}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_training_goes_on_from_a_checkpoint_to_the_bit(tmp_path, name):
    net, other = small_net(), small_net()
    optimizer = optimizers(net)[name]()
    schedule = mf.optim.PolyLR(optimizer, 10)
    for seed in range(2):
        step(net, optimizer, seed)
        schedule.step()
    progress = {"epoch": 3, "loss": 0.1 + 0.2, "best": None, "random": {"seed": 2**63, "position": 5}}
    save_checkpoint(tmp_path / "c", net, CARD, optimizer, schedule, progress)

    again = optimizers(other)[name]()
    again_schedule = mf.optim.PolyLR(again, 10)
    assert load_checkpoint(tmp_path / "c", other, CARD, again, again_schedule) == progress
    assert bits(other) == bits(net)
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for one, its, plan in ((net, optimizer, schedule), (other, again, again_schedule)):
        step(one, its, 2)
        plan.step()
        step(one, its, 3)
    assert bits(other) == bits(net), "momentum, moments, step counts and schedule were all taken up"


def test_odd_floats_and_whole_numbers_keep_their_bits(tmp_path):
    net = small_net()
    state = {key: np.array(value) for key, value in net.state_dict().items()}
    state["0.bias"] = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    state["1.num_batches_tracked"] = np.array(2**40 + 1)
    net.load_state_dict(state)
    save_weights(tmp_path / "w", net, CARD)
    arrays, card = load_weights(tmp_path / "w")
    assert card == CARD
    assert {key: (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()} == {
        key: (a.dtype, a.shape, a.tobytes()) for key, a in state.items()
    }


def test_a_transposed_array_is_written_in_order(tmp_path):
    net = small_net()
    weight = np.arange(12, dtype=np.float32).reshape(4, 3).T[:, :, None, None]  # (3, 4, 1, 1), not contiguous
    net.load_state_dict({"3.weight": weight}, strict=False)
    save_weights(tmp_path / "w", net, CARD)
    assert load_weights(tmp_path / "w")[0]["3.weight"].tolist() == weight.tolist()


def test_loaded_arrays_are_free_of_the_file(tmp_path):
    save_weights(tmp_path / "w", small_net(), CARD)
    arrays, _ = load_weights(tmp_path / "w")
    before = arrays["0.weight"].copy()
    save_weights(tmp_path / "w", small_net(), CARD)
    arrays["0.bias"] += 1  # may be written to
    assert np.array_equal(arrays["0.weight"], before)


def test_a_failure_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    net = small_net()
    optimizer = optimizers(net)["sgd"]()
    save_checkpoint(tmp_path / "c", net, CARD, optimizer, None, {"epoch": 1})
    old = (tmp_path / "c").read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    step(net, optimizer, 0)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "c", net, CARD, optimizer, None, {"epoch": 2})
    assert (tmp_path / "c").read_bytes() == old
    assert os.listdir(tmp_path) == ["c"]


def test_a_disk_that_fills_up_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    import safetensors
    import safetensors.numpy

    save_weights(tmp_path / "w", small_net(), CARD)
    old = (tmp_path / "w").read_bytes()

    def full(arrays, path, metadata):
        path.write_bytes(b"half")
        raise safetensors.SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="w cannot be written .No space left on device"):
        save_weights(tmp_path / "w", small_net(), CARD)
    assert (tmp_path / "w").read_bytes() == old
    assert os.listdir(tmp_path) == ["w"]


def test_weights_alone_build_the_network(tmp_path):
    net = CARD.create(seed=3)
    save_weights(tmp_path / "best.safetensors", net, CARD)
    for path in (tmp_path, tmp_path / "best.safetensors"):
        again, card = load_model(path)
        assert card == CARD
        assert bits(again) == bits(net)
        assert not again.training


def test_weights_can_be_taken_from_a_checkpoint(tmp_path):
    net = CARD.create(seed=3)
    save_checkpoint(tmp_path / "c", net, CARD, mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))
    assert bits(load_model(tmp_path / "c")[0]) == bits(net)


def test_a_checkpoint_of_another_model_is_named_and_changes_nothing(tmp_path):
    net = small_net()
    save_checkpoint(tmp_path / "c", net, CARD, optimizers(net)["sgd"]())
    other = small_net()
    before = bits(other)
    with pytest.raises(ValueError, match=r"of another model, fcn8s_resnet18 \(width 0.0625, 3 classes\), not"):
        load_checkpoint(tmp_path / "c", other, ModelCard("fcn32s_vgg16", 3), optimizers(other)["sgd"]())
    assert bits(other) == before


def test_names_of_classes_do_not_make_another_model(tmp_path):
    net = small_net()
    save_checkpoint(tmp_path / "c", net, CARD, optimizers(net)["sgd"](), None, {"epoch": 1})
    renamed = ModelCard("fcn8s_resnet18", 3, {"width": 0.0625}, ("x", "y", "z"))
    assert load_checkpoint(tmp_path / "c", net, renamed, optimizers(net)["sgd"]()) == {"epoch": 1}


def test_what_cannot_be_loaded_is_named(tmp_path):
    from safetensors.numpy import save_file

    net = small_net()
    save_weights(tmp_path / "whole", net, CARD)
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-7])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no weights at all")
    save_file({"x": np.zeros(2)}, tmp_path / "foreign")
    (tmp_path / "folder").mkdir()
    for name, kind, words in [
        ("cut", ValueError, "no complete safetensors file"),
        ("empty", ValueError, "no complete safetensors file"),
        ("text", ValueError, "no complete safetensors file"),
        ("foreign", ValueError, "does not say which model"),
        ("folder", FileNotFoundError, "holds no best.safetensors"),
        ("missing", FileNotFoundError, "there is no file"),
    ]:
        with pytest.raises(kind, match=words):
            load_weights(tmp_path / name)
    optimizer = optimizers(net)["sgd"]()
    with pytest.raises(ValueError, match="holds weights only"):
        load_checkpoint(tmp_path / "whole", net, CARD, optimizer)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_checkpoint(tmp_path / "missing", net, CARD, optimizer)
