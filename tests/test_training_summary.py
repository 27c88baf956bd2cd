"""A summary counts what a pen and paper count, measures memory, and leaves the network as it was."""

import itertools
import tracemalloc

import numpy as np
import pytest

import minifcn as mf
import minifcn.nn as nn
from minifcn.models.summary import summarize


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, (3, 5), stride=2, padding=(1, 2))
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 6, 1, groups=2, bias=False))
        self.up = nn.ConvTranspose2d(6, 2, 4, stride=2, padding=1, bias=False, groups=2)
        self.up.weight.requires_grad = False
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.up(self.body(self.norm(self.first(x))))


def test_rows_and_totals_by_hand():
    summary = summarize(Net(), (8, 12), batch=2, memory=False)
    found = [(r.name, r.kind, r.shape, r.learnable, r.fixed, r.macs) for r in summary.rows]
    assert found == [
        ("first", "Conv2d", (2, 4, 4, 6), 4 * 3 * 15 + 4, 0, (2 * 4 * 4 * 6) * 3 * 15),
        ("norm", "BatchNorm2d", (2, 4, 4, 6), 8, 0, 0),
        ("body.0", "ReLU", (2, 4, 4, 6), 0, 0, 0),
        ("body.1", "Conv2d", (2, 6, 4, 6), 6 * 2, 0, (2 * 6 * 4 * 6) * 2),
        ("up", "ConvTranspose2d", (2, 2, 8, 12), 0, 6 * 1 * 16, (2 * 6 * 4 * 6) * 1 * 16),
        ("unused", "Conv2d", (), 2, 0, 0),
    ]
    assert (summary.learnable, summary.fixed) == (184 + 8 + 12 + 2, 96)
    assert summary.macs == 192 * 45 + 288 * 2 + 288 * 16
    assert summary.memory is None


def test_a_layer_that_is_used_twice_works_twice_and_is_counted_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.same = self.conv

        def forward(self, x):
            return self.same(self.conv(x))

    summary = summarize(Twice(), (4, 5), memory=False)
    assert summary.learnable == 12
    assert summary.macs == 2 * (3 * 4 * 5) * 3


def test_memory_is_what_the_arrays_take():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    memory = summarize(net, (200, 300)).memory
    numbers = (3 * 8 + 8) + (8 * 8 + 8) + (8 * 2 + 2)
    assert memory.parameters == memory.gradients == memory.momentum == 4 * numbers
    hidden = 8 * 200 * 300 * 4  # bytes of one hidden map
    # two maps at a time in a pass without gradients; with them, at least both hidden maps and a cotangent
    assert 2 * hidden <= memory.forward < 4 * hidden
    assert 3 * hidden <= memory.training


def test_momentum_and_gradients_are_in_the_peak():
    net = nn.Sequential(nn.Conv2d(3, 512, 9, padding=4), nn.Conv2d(512, 2, 9, padding=4))
    memory = summarize(net, (1, 1)).memory
    assert memory.training >= memory.parameters + memory.gradients + memory.momentum
    # beside them, little but the weight gradient's buffers: a product and a partial sum of the larger filter's size
    larger = 512 * 3 * 9 * 9 * 4
    assert memory.training < memory.parameters + memory.gradients + memory.momentum + 4 * larger


@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_was(training):
    net = mf.models.create("fcn8s_resnet18", num_classes=3, width=0.0625).train(training)
    before = {key: np.array(value) for key, value in net.state_dict().items()}
    random = mf.random.get_state()
    summarize(net, (64, 64), batch=2)
    after = net.state_dict()
    assert all(np.array_equal(before[key], np.asarray(after[key])) for key in before)
    assert net.training is training
    assert all(p.grad is None for p in net.parameters())
    assert mf.random.get_state() == random
    assert not tracemalloc.is_tracing()


def test_the_papers_network_has_its_published_number_of_parameters():
    """134,362,751 learnable and 127,008 fixed at full width; here every channel count is a 64th."""
    summary = summarize(mf.models.create("fcn8s_vgg16_paper", width=1 / 64), (32, 32), memory=False)
    vgg = [3, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8]
    convs = sum(o * c * 9 + o for c, o in itertools.pairwise(vgg))
    head = 64 * 8 * 49 + 64 + 64 * 64 + 64
    scores = 21 * (64 + 1) + 21 * (8 + 1) + 21 * (4 + 1)
    assert summary.learnable == convs + head + scores
    assert summary.fixed == 21 * 21 * (16 + 16 + 256)


def test_sizes_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match=r"size is \(0, 5\) and batch 1"):
        summarize(Net(), (0, 5))
    with pytest.raises(ValueError, match="batch 0"):
        summarize(Net(), (5, 5), batch=0)
