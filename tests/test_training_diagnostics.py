"""Each fault that a user can build is found and named, and a healthy training is left in peace."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

import minifcn as mf
import minifcn.functional as F
from minifcn import cli, nn
from minifcn.autograd import Tensor
from minifcn.data import Shapes
from minifcn.models.fcn import FCN
from minifcn.training import FirstSteps, LabelCensus, TrainConfig, Trainer, diagnostics, train
from minifcn.training.diagnostics import broken_values, explain_nan

pytestmark = pytest.mark.usefixtures("no_learning_curves")

TINY = TrainConfig(
    model="fcn8s_resnet18", width=0.0625, size=(32, 40), scenes=6, val_scenes=2, epochs=2, batch_size=2, lr=0.01
)


def quiet(line):
    pass


class Net(nn.Module):
    """A convolution, ReLU, 1×1 scores, and a transposed convolution back to the image's size."""

    def __init__(self, classes=3):
        super().__init__()
        mf.manual_seed(3)
        self.features = nn.Conv2d(3, 8, 2, stride=2)
        self.score = nn.Conv2d(8, classes, 1)
        self.up = nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False)
        self.up.weight = nn.Parameter(nn.init.bilinear(self.up.weight.shape), requires_grad=False)

    def forward(self, x):
        return self.up(self.score(F.relu(self.features(x))))


def batches(n=2, classes=3):
    """Images whose class shows in their red channel, noise beside; a new batch at each step."""
    rng = np.random.default_rng(0)
    while True:
        labels = np.kron(rng.integers(0, classes, (n, 4, 4)), np.ones((1, 2, 2), int))
        images = rng.standard_normal((n, 3, 8, 8)).astype(np.float32)
        images[:, 0] += labels
        yield images, labels


def found(net, optimizer=None, *, steps=20, loss=F.cross_entropy, data=None, update=True, **options):
    """What FirstSteps says of a training of so many steps."""
    optimizer = optimizer or mf.optim.SGD(net.parameters(), lr=0.1)
    first = FirstSteps(net, optimizer, steps=steps, **options)
    for images, labels in data or batches():
        scores = net(Tensor(images))
        value = loss(scores, labels)
        value.backward()
        first.after_backward(value, scores, labels)
        if update:
            optimizer.step()
        optimizer.zero_grad()
        if first.done:
            return first.report()


def one(sentences, beginning):
    """The only sentence that begins so."""
    (sentence,) = (s for s in sentences if s.startswith(beginning))
    return sentence


@pytest.mark.parametrize("make", [mf.optim.SGD, mf.optim.Adam])
@pytest.mark.parametrize("zero_scores", [False, True])
def test_a_healthy_network_is_left_in_peace(make, zero_scores):
    net = Net()
    if zero_scores:  # the paper's start
        net.score.weight.data[...] = net.score.bias.data[...] = 0
    assert found(net, make(net.parameters(), lr=0.03), total_steps=300) == []


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn8s_resnet18", "fcn16s_decoder_vgg16", "fcn32s_vgg16_paper"])
def test_the_networks_of_this_package_have_no_note(tmp_path, name):
    """Among them fcn8s_vgg16, which answers with one class in all of these steps while its loss falls."""
    said = []
    config = replace(TINY, model=name, width=1 / 16, scenes=40, epochs=1, lr=0.003)
    train(config, tmp_path / "run", say=said.append)
    assert [line for line in said if line.startswith("note:")] == []


class ArticlesFCN(FCN):
    """FCN-8s as the second article wrote it: `s = self.upsample_8x(s2)`, where s is what the fusion had computed."""

    def forward(self, x):
        stages = self.backbone(x)
        (deeper, shallower) = self.skips
        s1 = self.score_fr(stages[self.deepest])
        s1 = self.upscore2(s1, output_size=stages[deeper].shape[2:])
        s2 = getattr(self, f"score_{deeper}")(stages[deeper]) + s1
        s2 = getattr(self, f"upscore_{deeper}")(s2, output_size=stages[shallower].shape[2:])
        s = getattr(self, f"score_{shallower}")(stages[shallower]) + s2  # scores3, lost by the next line
        s = self.upscore8(s2, output_size=x.shape[2:])
        return s


def test_the_articles_lost_scores_are_found():
    whole = mf.models.create("fcn8s_resnet18", num_classes=3, width=1 / 16, seed=0)
    net = ArticlesFCN(whole.backbone, 3, 8, "aligned")
    lost = f"score_{net.skips[1]}"
    data = ((np.repeat(np.repeat(i, 4, 2), 4, 3), np.repeat(np.repeat(t, 4, 1), 4, 2)) for i, t in batches())
    said = found(net, mf.optim.SGD(net.parameters(), lr=0.01), steps=3, data=data)
    assert said == [
        f"{lost}.weight, {lost}.bias get no gradient, as the loss does not depend on them; "
        "does forward() use what their layers computed?"
    ]


def test_one_parameter_without_gradient_is_named_in_the_singular():
    net = Net()
    net.extra = nn.Parameter(np.ones(3, np.float32))
    (sentence,) = found(net, steps=2)
    assert sentence.startswith("extra gets no gradient, as the loss does not depend on it")


def test_gradients_that_were_cleared_too_early():
    net = Net()
    first = FirstSteps(net, mf.optim.SGD(net.parameters()))
    images, labels = next(batches())
    scores = net(Tensor(images))
    first.after_backward(F.cross_entropy(scores, labels), scores, labels)
    assert first.report() == [
        "no parameter has a gradient; after_backward is to be called between backward() and zero_grad()"
    ]


def test_a_zero_filled_upsampler_and_what_comes_of_it():
    net = Net()
    net.up.weight.data[...] = 0
    said = found(net, steps=4)
    assert said[0] == (
        "the weights of up are all zero, so nothing passes this transposed convolution; nn.init.bilinear fills it"
    )
    assert one(said, "the gradient of").startswith(
        "the gradient of features.weight, features.bias, score.weight and 1 more was exactly zero in each of the first "
        "4 steps"
    )
    assert one(said, "all scores are").startswith(
        "all scores are exactly zero in batches 2 to 4, so the loss is ln 3 = 1.0986 whatever the image shows"
    )
    assert len(said) == 3


def test_an_upsampler_that_starts_at_zero_and_learns_is_none():
    net = Net()
    net.up.weight = nn.Parameter(np.zeros(net.up.weight.shape, np.float32))
    assert found(net) == []


def test_two_layers_of_zeros_in_a_row_never_start():
    net = Net()
    net.up.weight = nn.Parameter(np.zeros(net.up.weight.shape, np.float32))
    net.score.weight.data[...] = net.score.bias.data[...] = 0
    said = found(net, steps=3)
    assert one(said, "the weights of up are all zero")
    assert "up.weight" in one(said, "the gradient of") or "2 more" in one(said, "the gradient of")


def test_dead_relus_show_as_zero_gradients_and_as_scores_that_see_no_image():
    net = Net()
    net.features.bias.data[...] = -1000
    said = found(net, steps=5)
    assert one(said, "the gradient of").startswith(
        "the gradient of features.weight, features.bias, score.weight was exactly zero in each of the first 5 steps"
    )
    assert one(said, "different images").startswith("different images get the same scores in batches 2 to 5: ")
    assert len(said) == 2


def test_a_batch_of_one_cannot_show_that_images_do_not_count():
    net = Net()
    net.features.bias.data[...] = -1000
    assert not any("different images" in s for s in found(net, steps=5, data=batches(n=1)))


def test_a_parameter_that_the_optimizer_was_not_given():
    net = Net()
    (sentence,) = found(net, mf.optim.SGD(net.score.parameters(), lr=0.1))
    assert sentence.startswith("features.weight, features.bias are not among the optimizer's parameters")


def test_one_class_everywhere_is_a_fault_only_where_the_loss_does_not_fall():
    def biased(rate):
        net = Net()
        net.score.bias.data[...] = (0, 0, 20)
        return found(net, mf.optim.SGD(net.parameters(), lr=rate), classes=("sky", "road", "tree"))

    shown = np.concatenate([labels for _, (_, labels) in zip(range(20), batches(), strict=False)])
    (sentence,) = biased(1e-4)
    assert sentence.startswith(
        f"every pixel of batches 2 to 20 is answered with class 2 (tree), which has {(shown == 2).mean():.0%} of the "
        "labels, and the loss neither falls beyond its noise (median 3."
    )
    assert "in the second) nor comes below ln 3 = 1.0986, what equal scores would lose; check the learning" in sentence
    assert biased(0.5) == []  # it falls
    net = Net()
    net.score.bias.data[...] = (0, 0, 200)
    net.features.requires_grad_(False)
    net.score.weight.requires_grad = False
    assert found(net, mf.optim.SGD([net.score.bias], lr=20)) == []  # from 35 to 20; the third class wins all the while


def test_the_first_batch_of_zero_scores_does_not_count():
    """Equal scores answer class 0."""

    class ZeroAtFirst(Net):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * float(self.calls > 1)

    net = ZeroAtFirst()
    net.score.bias.data[...] = (0, 0, 20)
    said = found(net, mf.optim.SGD(net.parameters(), lr=1e-4))
    assert one(said, "every pixel of batches 2 to 20 is answered with class 2, ")


def test_two_classes_are_not_one_however_late_the_second_comes():
    data = ((images * (k > 9), labels) for k, (images, labels) in enumerate(batches()))
    assert not any(s.startswith("every pixel") for s in found(Net(), data=data, update=False))


def test_whichever_way_the_fall_is_clearer_it_is_one():
    """Two batches in ten are of the rare class. The losses do not mind, and then they do."""
    first = FirstSteps(net := Net(), mf.optim.SGD(net.parameters()))
    rare = np.arange(20) % 5 == 4
    first._counts = [np.array([0, 100] if r else [100, 0]) for r in rare]
    noise = 0.01 * (-1.0) ** np.arange(20)
    fall = np.repeat([1.0, 0.9], 10) + noise
    surprise = np.where(rare, -math.log(0.2), -math.log(0.8))
    spike = np.where(np.arange(20) == 3, 1000, 0)
    for losses, falls in (
        (fall, True),
        (fall + surprise, True),
        (fall + spike, True),
        (fall[::-1], False),
        (1 + noise + surprise, False),
    ):
        first._losses = losses.tolist()
        assert first._falls() is falls
    first._losses, first._counts = list(range(8, 0, -1)), [np.array([1, 1])] * 8
    assert first._falls() is True  # without exception
    first._losses, first._counts = first._losses[:7], first._counts[:7]
    assert first._falls() is None


def test_a_network_that_has_learned_the_frequencies_has_learned_something():
    def answers(number):
        net = Net()
        net.score.bias.data[...] = 8 * (np.arange(3) == number)
        data = ((images, np.where(images[:, 0] > 1.5, labels, 2)) for images, labels in batches())
        return any(s.startswith("every pixel") for s in found(net, data=data, update=False))

    assert not answers(2)
    assert answers(0)
    assert answers(1)


def test_labels_of_one_class_alone_are_answered_with_it():
    data = ((images, labels * 0) for images, labels in batches())
    net = Net()
    net.score.bias.data[...] = (20, 0, 0)
    assert not any("every pixel" in s for s in found(net, mf.optim.SGD(net.parameters(), lr=1e-4), data=data))


def test_the_papers_rate_for_the_mean_loss():
    net = Net()
    net.score.weight.data[...] = net.score.bias.data[...] = 0
    said = found(net, mf.optim.SGD(net.parameters(), lr=1e-10, momentum=0.99))
    assert one(said, "the loss is") == (
        "the loss is 1.0986 in each of the first 20 steps = ln 3, as if all scores were equal: the updates change "
        "nothing; a learning rate above 1e-10 is needed; one for the sum over the pixels, such as the paper's 1e-10, "
        "must be multiplied by their number, here 128 in a step, if the loss is their mean"
    )


def test_a_rate_that_gets_nowhere_in_the_whole_run():
    net, rate, momentum = Net(), 1e-6, 0.9
    before = [p.data.copy() for p in (net.features.weight, net.score.weight)]
    said = found(net, mf.optim.SGD(net.parameters(), lr=rate, momentum=momentum), steps=10, total_steps=500)
    sentence = one(said, "a step changes no layer's weights by more than")
    assert "(learning rate 1e-06), so 500 steps cannot change them by 1 %, and the loss does not fall; " in sentence
    # what it says per step, times the steps that momentum makes of nine, is at least what the weights have moved
    said_ratio = float(sentence.split()[9])
    moved = max(
        np.linalg.norm(p.data - w) / np.linalg.norm(w)
        for p, w in zip((net.features.weight, net.score.weight), before, strict=True)
    )
    assert moved / 9 < said_ratio < 0.01 / 500
    said = found(Net(), steps=10)
    assert not any(s.startswith("a step changes no") for s in said)


def test_momentum_is_counted_as_it_will_be():
    """A constant gradient: after t steps the update is (1 − mᵗ)/(1 − m) of the first, in the end 1/(1 − m)."""
    w = nn.Parameter(np.full((2, 2), 4.0))

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = w

    net = Constant()
    first = FirstSteps(net, optimizer := mf.optim.SGD([w], lr=1e-7, momentum=0.5), steps=5)
    labels, scores = np.array([[[0, 1]]]), Tensor(np.zeros((1, 2, 1, 2)))
    for _ in range(5):
        loss = w.sum()
        loss.backward()
        first.after_backward(loss, scores, labels)
        optimizer.step()
        optimizer.zero_grad()
    (seen,) = first._parameters
    assert seen.ahead == pytest.approx(1e-7 / 4 / (1 - 0.5), rel=1e-5)
    assert seen.largest == pytest.approx(1e-7 / 4 * (1 + 0.5 + 0.25 + 0.125), rel=1e-5)


@pytest.mark.parametrize("make", [mf.optim.SGD, mf.optim.Adam])
def test_few_steps_are_enough_to_see_a_rate_that_gets_nowhere(make):
    """Batch norm, and batches that differ: their losses are not alike, and too few to fall."""
    for steps, rate, total, is_found in ((2, 1e-10, 24, True), (7, 1e-10, 24, True), (7, 0.03, 24, False)):
        net = nn.Sequential(Net(), nn.BatchNorm2d(3))
        said = found(net, make(net.parameters(), lr=rate), steps=steps, total_steps=total)
        assert len(said) == is_found
        if is_found:
            (sentence,) = said
            assert sentence.startswith("a step changes no layer's weights by more than ")
            assert "(learning rate 1e-10), so 24 steps cannot change them by 1 %; a learning rate above 1e" in sentence
    net = nn.Sequential(Net(), nn.BatchNorm2d(3))
    net[0].score.weight.data[...] = 0  # hides the others' gradients at first
    assert found(net, mf.optim.SGD(net.parameters(), lr=1e-5), steps=3, total_steps=24) == []
    assert found(Net(), steps=1, total_steps=24) == []  # whose update is not seen


def test_the_trainer_sees_in_a_short_epoch_that_the_rate_gets_nowhere(tmp_path):
    said = []
    train(replace(TINY, lr=1e-10, epochs=2), tmp_path / "run", say=said.append)
    note = one(said, "note: a step changes no layer's weights by more than")
    assert "so 6 steps cannot change them by 1 %; a learning rate above 1e-10 is needed" in note


@pytest.mark.parametrize("rate", [1e-10, 0.03])
def test_the_rate_is_that_of_the_layers_weights(rate):
    net = Net()
    net.score.weight.data[...] = net.score.bias.data[...] = 0
    groups = mf.optim.paper_groups(net, rate, 0.0)  # twice the rate for biases
    assert {group["lr"] for group in groups} == {rate, 2 * rate}
    said = found(net, mf.optim.SGD(groups, lr=rate))
    if rate < 1e-9:
        assert "a learning rate above 1e-10 is needed" in one(said, "the loss is")
    else:
        assert said == []


def test_adams_steps_do_not_depend_on_the_loss():
    net = Net()
    sentence = one(found(net, mf.optim.Adam(net.parameters(), lr=1e-9)), "a step changes no layer's weights")
    assert sentence.endswith("and the loss does not fall; a learning rate above 1e-09 is needed")


def test_a_small_bias_may_grow():
    net = Net()
    net.score.bias.data[...] = 1e-6
    assert found(net, mf.optim.Adam(net.parameters(), lr=0.03)) == []


def test_a_single_update_is_one():
    net = Net()
    optimizer = mf.optim.SGD(net.parameters(), lr=0.1)

    def once():
        for k, batch in enumerate(batches()):
            if k == 2:
                optimizer.param_groups[0]["lr"] = 0.0
            yield batch

    assert not any(s.startswith("no parameter has changed") for s in found(net, optimizer, data=once()))


def test_what_is_neither_used_nor_trained_is_named_once():
    net = Net()
    net.extra = nn.Parameter(np.ones(3, np.float32))
    parts = [*net.features.parameters(), *net.score.parameters()]
    (sentence,) = found(net, mf.optim.SGD(parts, lr=0.1))
    assert sentence.startswith("extra gets no gradient")


def test_a_loop_without_updates():
    (*_, sentence) = found(Net(), update=False)
    assert sentence.startswith("no parameter has changed in the first 20 steps, though there are gradients; is optimi")


def test_too_large_a_rate_for_the_sum_of_the_losses():
    def summed(scores, labels):
        return F.cross_entropy(scores, labels, reduction="sum")

    net = Net()
    said = found(net, mf.optim.SGD(net.parameters(), lr=0.5), steps=2, loss=summed)
    sentence = one(said, "one step changes ")
    assert (
        "times its own size, so nothing is left of it (learning rate 0.5); a lower learning rate is needed; "
        in sentence
    )
    assert sentence.endswith("the loss is the sum over 128 pixels: divide a learning rate for their mean by that")
    net = Net()
    assert found(net, mf.optim.SGD(net.parameters(), lr=0.5 / 128), steps=2, loss=summed) == []
    net = Net()
    said = found(net, mf.optim.SGD(net.parameters(), lr=0.5 * 128), steps=2)
    assert one(said, "one step changes ").endswith("a lower learning rate is needed")
    net = Net()
    said = found(net, mf.optim.Adam(net.parameters(), lr=5.0), steps=2, loss=summed)  # the same for sum and mean
    assert one(said, "one step changes ").endswith("a lower learning rate is needed")
    net = Net()
    said = found(net, steps=2, loss=lambda scores, labels: F.cross_entropy(scores, labels) * 1000)  # large, and no sum
    assert one(said, "one step changes ").endswith("a lower learning rate is needed")


def test_a_loss_that_is_said_to_be_a_sum_is_looked_at_per_pixel():
    """What the scores and labels of one of two processes cannot tell: it is given the whole batch's sum and pixels."""
    net = Net()
    net.score.weight.data[...] = net.score.bias.data[...] = 0
    first = FirstSteps(net, optimizer := mf.optim.SGD(net.parameters(), lr=1e-12), steps=3, reduction="sum")
    for _, (images, labels) in zip(range(3), batches(), strict=False):
        loss = F.cross_entropy(net(Tensor(images)), labels, reduction="sum")
        loss.backward()
        first.after_backward(loss * 2, net(Tensor(images)), labels, pixels=256)
        optimizer.step()
        optimizer.zero_grad()
    assert one(first.report(), "the loss") == (
        "the loss per pixel is 1.0986 in each of the first 3 steps = ln 3, as if all scores were equal: the updates "
        "change nothing; a learning rate above 1e-12 is needed"
    )


def test_a_loss_that_is_said_to_be_a_mean_is_not_taken_for_a_sum():
    net = Net()
    loss = lambda scores, labels: F.cross_entropy(scores, labels, reduction="sum")  # noqa: E731
    said = found(net, mf.optim.SGD(net.parameters(), lr=0.5), steps=2, loss=loss, reduction="mean")
    assert one(said, "one step changes ").endswith("a lower learning rate is needed")


def test_there_are_two_reductions():
    with pytest.raises(ValueError, match="reduction is 'none'; 'mean', 'sum' or None"):
        FirstSteps(Net(), mf.optim.SGD(Net().parameters(), lr=0.1), reduction="none")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_no_number_ends_the_watch():
    net = Net()
    said = found(net, mf.optim.SGD(net.parameters(), lr=1e30))
    assert one(said, "the loss is nan in step ")
    assert one(said, "one step changes ")


def test_evaluation_mode_in_training():
    net = nn.Sequential(Net(), nn.BatchNorm2d(3)).eval()
    sentence = one(found(net, steps=3), "the network was")
    assert "in evaluation mode in 3 of the first 3 steps, so batch norm did not work" in sentence
    assert found(Net().eval(), steps=3) == []  # nothing in it cares


def test_batch_norm_of_single_images():
    assert one(found(nn.Sequential(Net(), nn.BatchNorm2d(3)), data=batches(n=1)), "batch norm (1) sees batches of one")
    assert found(nn.Sequential(Net(), nn.BatchNorm2d(3)), data=batches(n=2)) == []
    net = nn.Sequential(Net(), nn.BatchNorm2d(3))
    net[1].eval()
    assert found(net, data=batches(n=1)) == []


def test_no_step_shows_no_batch():
    """What a training sees that is resumed at the end of its first epoch."""
    net = nn.Sequential(Net(), nn.BatchNorm2d(3))
    assert FirstSteps(net, mf.optim.SGD(net.parameters(), lr=0.1)).report() == []


def test_a_run_that_is_resumed_after_its_first_epochs_last_step_has_no_note(tmp_path):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    trainer._validate = lambda check: os.kill(os.getpid(), signal.SIGINT) or check()
    with pytest.raises(KeyboardInterrupt, match="saved after step 3 of epoch 1"):
        trainer.fit()
    said = []
    train(out=tmp_path / "run", resume=True, say=said.append)
    assert [line for line in said if line.startswith("note:")] == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((1, 1, 1), "batch norm (1) sees batches of one image: "),
        ((2, 1, 1), "batch norm (1) sees batches of one image in 2 of 3 processes: "),
        ((2, 2, 2), None),
    ],
)
def test_batch_norm_of_single_images_in_some_processes(images, words):
    """Each process finds it, not only those that it happens to."""
    for rank in range(3):

        def gather(own, rank=rank):
            every = np.stack([own] * 3)
            if own.shape == (4,):  # counts of three classes, and images
                assert own[3] == images[rank]
                every[:, 3] = images
            return every

        net = nn.Sequential(Net(), nn.BatchNorm2d(3))
        said = found(net, data=batches(n=images[rank]), gather=gather, steps=4)
        assert [line[: len(words or "")] for line in said] == ([] if words is None else [words])


def test_it_changes_nothing_and_stops_looking():
    net = Net()
    optimizer = mf.optim.Adam(net.parameters())
    first = FirstSteps(net, optimizer, steps=2)
    for k, (images, labels) in zip(range(4), batches(), strict=False):
        scores = net(Tensor(images))
        loss = F.cross_entropy(scores, labels)
        loss.backward()
        before = {
            n: (p.data.tobytes(), p.grad.data.tobytes(), p._version[0])
            for n, p in net.named_parameters()
            if p.grad is not None
        }
        state = mf.random.get_state()
        assert first.done == (k >= 2)
        first.after_backward(loss, scores, labels)
        assert mf.random.get_state() == state
        assert before == {
            n: (p.data.tobytes(), p.grad.data.tobytes(), p._version[0])
            for n, p in net.named_parameters()
            if p.grad is not None
        }
        optimizer.step()
        optimizer.zero_grad()
    assert len(first._losses) == 2


def test_batches_of_void_are_passed_over():
    net = Net()
    first = FirstSteps(net, mf.optim.SGD(net.parameters()), steps=1)
    scores = net(Tensor(np.zeros((1, 3, 8, 8), np.float32)))
    first.after_backward(scores.sum(), scores, np.full((1, 8, 8), 255))
    assert not first.done
    assert first.report() == []


@pytest.mark.parametrize("option", ["steps", "total_steps"])
def test_options_out_of_range(option):
    net = Net()
    with pytest.raises(ValueError, match=f"FirstSteps: {option} is 0; at least 1 is needed"):
        FirstSteps(net, mf.optim.SGD(net.parameters()), **{option: 0})


def test_it_looks_on_where_the_network_is(device):
    net = Net()
    net.up.weight.data[...] = 0
    net.to(device)
    optimizer = mf.optim.SGD(net.parameters(), lr=0.1)
    first = FirstSteps(net, optimizer, steps=2)
    for images, labels in batches():
        target = Tensor(labels).to(device)
        scores = net(Tensor(images).to(device))
        loss = F.cross_entropy(scores, target)
        loss.backward()
        assert broken_values(net, gradients=True) is None
        first.after_backward(loss, scores, target)
        optimizer.step()
        optimizer.zero_grad()
        if first.done:
            break
    assert len(first.report()) == 3


# ----- labels


def test_labels_that_are_no_class_are_named_with_their_files():
    census = LabelCensus(("a", "b", "c"))
    labels = np.zeros((3, 2, 2), np.int64)
    labels[1, 0, 0], labels[2, 1] = -1, (3, 255)
    with pytest.raises(
        ValueError,
        match=r"^train: two.png, three.png hold labels -1, 3, but the 3 classes are 0 … 2 \(a, b, c\); 255 marks ignor",
    ):
        census.see(labels, ("one.png", "two.png", "three.png"))


def test_huge_labels_are_named_without_counting_up_to_them():
    with pytest.raises(ValueError, match="train: one.png holds labels 1099511627776, but the 3 classes are 0"):
        LabelCensus(("a", "b", "c")).see(np.array([[[0, 1 << 40]]]), ("one.png",))  # counts would be 8 TiB


def test_gradients_whose_squares_vanish_are_not_zero():
    assert not diagnostics._all_zero(np.full(9000, 1e-30, np.float32))
    late = np.zeros(9000, np.float32)
    late[1] = 1e-30  # not among the sample, which is every third value
    assert not diagnostics._all_zero(late)
    assert diagnostics._all_zero(np.zeros(9000, np.float32))


def test_the_trainer_names_them_in_any_epoch(tmp_path, monkeypatch):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    draw = Shapes.__getitem__

    def spoiled(self, i):
        sample = draw(self, i)
        return sample._replace(labels=np.full_like(sample.labels, 77)) if trainer.epoch == 1 and i == 3 else sample

    monkeypatch.setattr(Shapes, "__getitem__", spoiled)
    name = draw(trainer.train_set, 3).name
    with pytest.raises(ValueError, match=f"train: {name} holds labels 77, but the 6 classes are 0 … 5"):
        trainer.fit()


def test_many_classes_without_pixels_are_counted():
    census = LabelCensus(tuple(f"class {k}" for k in range(200)))
    census.see(np.array([[[0, 1, 199]]], np.uint8), ("a",))
    said = census.report()
    assert said.startswith("no training pixel of this epoch is labelled class 2, class 3, ")
    assert "class 13 and 185 more; are the masks" in said


def test_a_resumed_epoch_is_not_said_to_lack_what_came_before(tmp_path, monkeypatch):
    """Only the first batch has class 5; the run stops after it, goes on, and says what one without a stop does."""
    draw = Shapes.__getitem__
    config = replace(TINY, epochs=1, flip=False)
    trainer = Trainer(config, tmp_path / "run", say=quiet)
    order = trainer.loader._rng(0, 0).permutation(6)

    def labelled(self, i):
        sample = draw(self, i)
        return sample._replace(labels=np.where(i == order[0], 5, 0).astype(np.uint8) * np.ones_like(sample.labels))

    monkeypatch.setattr(Shapes, "__getitem__", labelled)
    passes = []

    def stop(module, inputs, output):
        passes.append(1)
        if len(passes) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.module.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt, match="after step 1 of epoch 1"):
        trainer.fit()
    names = trainer.card.classes[1:5]  # 0 is in all batches, and 5 in the one before the stop
    for out, resume in ((tmp_path / "run", True), (tmp_path / "whole", False)):
        said = []
        train(None if resume else config, out, resume=resume, say=said.append)
        (line,) = (line for line in said if "no training pixel" in line)
        assert line.startswith(f"note: no training pixel of this epoch is labelled {', '.join(names)}; ")


# ----- in the trainer


def test_the_trainer_says_it_once_in_the_first_epoch(tmp_path):
    said, steps = [], []

    def say(line):
        said.append(line)
        steps.append(trainer.step if said[1:] else 0)

    trainer = Trainer(replace(TINY, model="fcn32s_vgg16", width=1 / 32, scenes=44), tmp_path / "run", say=say)
    trainer.module.upscore32.weight.data[...] = 0
    result = trainer.fit()
    notes = [line for line in said if line.startswith("note:")]
    assert notes[0] == (
        "note: the weights of upscore32 are all zero, so nothing passes this transposed convolution; "
        "nn.init.bilinear fills it"
    )
    assert "in batches 2 to 20" in one(notes, "note: all scores")
    assert len({*notes}) == len(notes)
    assert [step for step, line in zip(steps, said, strict=True) if line.startswith("note:")] == [20] * len(notes)
    assert result.records[0]["train_loss"] == pytest.approx(math.log(6), rel=1e-6)


def test_a_short_epoch_is_reported_at_its_end(tmp_path):
    said = []
    config = replace(TINY, model="fcn8s_vgg16", width=1 / 32, epochs=1)
    trainer = Trainer(config, tmp_path / "run", say=said.append)
    trainer.module.upscore8.weight.data[...] = 0
    trainer.fit()
    assert any("in batches 2 to 3" in line for line in said)


def test_a_later_epoch_is_not_watched(tmp_path):
    config = replace(TINY, model="fcn8s_vgg16", width=1 / 32, schedule="constant")
    train(replace(config, epochs=1), tmp_path / "run", say=quiet)
    trainer = Trainer.resume(tmp_path / "run", config, say=(said := []).append)
    trainer.module.upscore8.weight.data[...] = 0
    trainer.fit()
    assert not any(line.startswith("note:") for line in said)


# ----- a loss that is no number


def test_an_operation_that_made_it_is_named():
    x = Tensor([1.0, 0.0], requires_grad=True)
    said = explain_nan(lambda: x.log().sum())
    assert said.startswith("log: made 1 Inf out of finite arguments at ")
    assert "test_training_diagnostics.py" in said
    x = Tensor([0.0], requires_grad=True)
    assert explain_nan(lambda: x.sqrt().sum()).startswith("backward of sqrt, called at ")
    assert explain_nan(lambda: (x * 2).sum()) is None


def test_broken_values_are_told_from_large_ones():
    net = Net()
    assert broken_values(net) is None
    net.features.weight.data[0, 0, 0, 0] = 1e30  # its square is not finite
    assert broken_values(net) is None
    assert broken_values(net, gradients=True) is None
    net.features.weight.data[0, 0, 0, 0], net.score.bias.data[1] = np.nan, np.inf
    assert broken_values(net) == "features.weight, score.bias hold NaN or Inf"
    net.score.weight.grad = Tensor(np.full(net.score.weight.shape, np.nan, np.float32))
    assert broken_values(net, gradients=True) == "the gradient of score.weight holds NaN or Inf"


def stopped(trainer):
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as error:
        trainer.fit()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_that_overflow_are_followed_to_their_layer(tmp_path):
    trainer = Trainer(replace(TINY, model="fcn8s_vgg16", width=1 / 32), tmp_path / "run", say=quiet)
    for name, p in trainer.module.named_parameters():
        if name.startswith("backbone.") and p.ndim == 4:
            p.data *= 1e8
    said = stopped(trainer)
    assert said.startswith("train: the loss is nan in epoch 1, step 1 (learning rate 0.01): ")
    assert "Inf out of finite arguments at " in said
    assert "layer backbone." in said
    assert said.endswith("; a new run with a lower --lr is needed")


def test_weights_that_are_no_numbers_are_named(tmp_path):
    trainer = Trainer(TINY, tmp_path / "run", say=quiet)
    trainer.module.score_fr.bias.data[2] = np.nan
    assert stopped(trainer).startswith(
        "train: the loss is nan in epoch 1, step 1 (learning rate 0.01): score_fr.bias holds NaN or Inf; a new run "
    )


def test_the_command_names_the_layer_and_no_line_of_its_own(tmp_path, capsys):
    words = "--optimizer sgd --lr 100 --scenes 40 --size 32x32 --width 0.0625 --model fcn8s_resnet18 --out"
    assert cli.main(["train", *words.split(), str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("minifcn: train: ")
    assert " at layer " in line
    assert ".py" not in line


class LogOfScores(nn.Module):
    """Around a network: log of something that is infinite, or zero."""

    def __init__(self, inner, what):
        super().__init__()
        self.inner, self.what = inner, what

    def forward(self, x):
        scores = self.inner(x)
        if self.what == "exp":
            return (scores * 0 + 100.0).exp().log() * scores  # exp(100) is more than float32 holds
        if self.what == "log":
            return (scores * 0).log() + scores
        return (scores * 0).sqrt() + scores  # finite, with an infinite slope


@pytest.mark.parametrize(
    ("what", "loss", "why"),
    [
        ("exp", "the loss is nan", "exp: made 7680 Inf out of finite arguments at "),
        ("log", "the loss is nan", "log: made 7680 Inf out of finite arguments at "),
        ("sqrt", "the gradient of inner.", "backward of sqrt, called at "),
    ],
)
def test_an_inf_before_a_log_is_named_with_its_line(tmp_path, what, loss, why):
    trainer = Trainer(replace(TINY, size=(32, 20 * 2), batch_size=1), tmp_path / "run", say=quiet)
    trainer.module = LogOfScores(trainer.module, what)
    before = {name: value.numpy().copy() for name, value in trainer.module.state_dict().items()}
    state = trainer._random
    said = stopped(trainer)
    assert said.startswith(f"train: {loss}")
    assert f": {why}" in said
    assert "test_training_diagnostics.py" in said
    for name, value in trainer.module.state_dict().items():  # neither weights nor running statistics have moved
        np.testing.assert_array_equal(value.numpy(), before[name], err_msg=name)
    assert trainer._random == state


def test_the_step_is_made_again_with_the_same_dropout(tmp_path):
    trainer = Trainer(replace(TINY, model="fcn8s_vgg16", width=1 / 32), tmp_path / "run", say=quiet)
    dropped = []
    trainer.module.head.drop.register_forward_hook(lambda module, inputs, output: dropped.append(output.data.copy()))
    trainer.module = LogOfScores(trainer.module, "log")
    stopped(trainer)
    first, second, first_again, second_again = dropped  # after fc6 and fc7
    assert (first == 0).any()
    np.testing.assert_array_equal(first_again, first)
    np.testing.assert_array_equal(second_again, second)


def test_the_papers_rate_in_the_trainer(tmp_path):
    """The note gives the rate that was asked for, not what the schedule has made of it; and one note is enough."""
    config = replace(TINY, model="fcn8s_vgg16", width=1 / 32, scenes=44, epochs=1, optimizer="sgd", lr=1e-10)
    said = []
    train(config, tmp_path / "run", say=said.append)
    (note,) = (line for line in said if line.startswith("note:"))
    assert note.startswith("note: the loss is 1.7918 in each of the first 20 steps = ln 6, as if all scores were equal")
    assert "a learning rate above 1e-10 is needed" in note
