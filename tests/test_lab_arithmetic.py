"""The integers of a transposed convolution, against counting by the definition and against what is known of them."""

import itertools

import numpy as np
import pytest
from layers import draw

import minifcn.functional as F
from minifcn import lab
from minifcn.autograd import Tensor
from minifcn.geometry import ConvGeometry


def meetings(geom: ConvGeometry, axis: int) -> set[tuple[int, int, int]]:
    """All (h, p, i) with h = p·s + i·d − padding inside the image, by trying every one of them."""
    sizes = range(geom.x_hw[axis]), range(geom.y_hw[axis]), range(geom.w_hw[axis])
    s, d, padding = geom.stride[axis], geom.dilation[axis], geom.padding[axis]
    return {(h, p, i) for h, p, i in itertools.product(*sizes) if h == p * s + i * d - padding}


@pytest.mark.parametrize("seed", range(5))
def test_who_feeds_whom_by_trying_everything(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(40):
        geom, _ = draw(rng)
        for axis in range(2):
            met = meetings(geom, axis)
            rows, scores = range(geom.x_hw[axis]), range(geom.y_hw[axis])
            assert {(h, p, i) for h in rows for p, i in lab.feeding(geom, axis, h)} == met
            assert {(h, p, i) for p in scores for h, i in lab.reached(geom, axis, p)} == met
            for phase in lab.phases(geom, axis):
                for h in phase.rows:
                    assert (h + geom.padding[axis]) % geom.stride[axis] == phase.phase
                    assert {i for row, _, i in met if row == h} <= set(phase.taps)
            assert sorted(h for phase in lab.phases(geom, axis) for h in phase.rows) == list(rows)
            assert sorted(i for phase in lab.phases(geom, axis) for i in phase.taps) == list(range(geom.w_hw[axis]))
        counted = np.zeros(geom.x_hw, np.int64)
        for (h, _, _), (v, _, _) in itertools.product(meetings(geom, 0), meetings(geom, 1)):
            counted[h, v] += 1
        assert (lab.overlap(geom) == counted).all()


def test_size_is_relationship_14_and_what_conv_transpose2d_returns() -> None:
    """o′ = s(i′ − 1) + a + k − 2p, with the dilated kernel for k."""
    rng = np.random.default_rng(7)
    for _ in range(200):
        geom, settings = draw(rng)
        image = F.conv_transpose2d(Tensor(np.ones(geom.y_shape)), Tensor(np.ones(geom.w_shape)), **settings)
        assert geom.x_hw == image.shape[2:]
        for axis in range(2):
            s, p, a, d = (settings[key][axis] for key in ("stride", "padding", "output_padding", "dilation"))
            k = geom.w_hw[axis] + (geom.w_hw[axis] - 1) * (d - 1)  # relationship 15
            assert geom.x_hw[axis] == s * (geom.y_hw[axis] - 1) + a + k - 2 * p
            assert lab.formula(geom, axis).endswith(f" = {geom.x_hw[axis]}")
            written = lab.formula(geom, axis).partition("=")[0].replace("−", "-").replace("·", "*")
            assert eval(written) == geom.x_hw[axis]
        assert lab.output_padding(geom) == settings["output_padding"]


def test_image_sizes_are_those_that_a_convolution_sends_there() -> None:
    for p, k, s, padding, d in itertools.product((1, 2, 5), (1, 2, 3, 5), (1, 2, 3), (0, 1, 3), (1, 2)):
        try:
            geom = lab.layer(p, k, s, padding, 0, d)
        except ValueError:
            continue
        found = []
        for size in range(1, 60):
            image = Tensor(np.ones((1, 1, size, size)))
            try:
                scores = F.conv2d(image, Tensor(np.ones((1, 1, k, k))), stride=s, padding=padding, dilation=d)
            except ValueError:
                continue
            found += [size] if scores.shape[2] == p else []
        assert list(lab.image_sizes(geom)[0]) == found
        for size in found:  # and the way back is told apart by output_padding alone
            back = lab.layer_to(size, k, s, padding, d)
            assert (back.y_hw, back.x_hw) == ((p, p), (size, size))
            smallest = (p - 1) * s - 2 * padding + d * (k - 1) + 1  # which may be below 1, and then not in `found`
            assert lab.output_padding(back) == (size - smallest, size - smallest)


@pytest.mark.parametrize(
    ("arguments", "number", "size"),
    [  # the guide's figures 4.1 to 4.7, read backwards: kernel, stride, padding, output_padding, input → output
        ((2, 3, 1, 0, 0), 8, 4),
        ((6, 4, 1, 2, 0), 9, 5),
        ((5, 3, 1, 1, 0), 10, 5),
        ((7, 3, 1, 2, 0), 11, 5),
        ((2, 3, 2, 0, 0), 12, 5),
        ((3, 3, 2, 1, 0), 13, 5),
        ((3, 3, 2, 1, 1), 14, 6),
        ((5, 4, 1, 1, 0), 9, 6),  # 1 is not half of an even filter's 3
    ],
)
def test_relationships_of_the_guide(arguments: tuple[int, ...], number: int, size: int) -> None:
    scores, k, s, p, a = arguments
    geom = lab.layer(scores, k, s, p, a)
    which = lab.relationship(geom, 0)
    assert (which.number, geom.x_hw, which.remark) == (number, (size, size), "")
    rule = which.rule.partition("=")[2].replace("i′", "i").replace("s(", "s*(").replace("2p", "2*p").replace("−", "-")
    assert eval(rule, {"i": scores, "s": s, "k": k, "p": p, "a": a}) == size


def test_what_the_guide_leaves_open_is_said() -> None:
    cropping = lab.layer(5, kernel=3, padding=3)
    assert lab.equivalent_convolution(cropping).before == (-1, -1)
    unequal = lab.layer(5, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(1, 4))
    assert lab.equivalent_convolution(unequal) == lab.EquivalentConvolution((1, 2), (1, 4), (2, 6))
    assert "p′ = −1 means cropping" in lab.relationship(cropping, 0).remark
    assert "relationship 15" in lab.relationship(lab.layer(5, kernel=3, dilation=2), 0).remark
    beyond = lab.layer(5, kernel=3, dilation=2, output_padding=1)  # PyTorch allows it, as it is below the dilation
    assert "no convolution of this stride leads back" in lab.relationship(beyond, 0).remark
    assert (lab.relationship(beyond, 0).number, lab.relationship(beyond, 0).title) == (None, "none of the guide's")
    assert beyond.x_hw[0] not in lab.image_sizes(beyond)[0]


def test_output_padding_gives_back_rows_that_padding_crops() -> None:
    """It pads nothing: the rows are those of the uncropped result, and 0 only where no score reaches."""
    w, y = np.arange(1.0, 10).reshape(1, 1, 3, 3), np.arange(1.0, 10).reshape(1, 1, 3, 3)
    whole = lab.scatter(y, w, lab.layer(3, 3, stride=3))  # 9×9
    for padding, extra in ((1, 1), (1, 2), (2, 1), (0, 1), (0, 2)):
        x = lab.scatter(y, w, lab.layer(3, 3, 3, padding, extra))
        reach = 9 - padding + min(extra, padding) - padding
        assert (x[..., :reach, :reach] == whole[..., padding : padding + reach, padding : padding + reach]).all()
        assert x.shape[2] == reach + max(extra - padding, 0)
        assert not x[..., reach:, :].any()
        assert not x[..., reach:].any()


@pytest.mark.parametrize(
    ("arguments", "along_an_axis"),
    [
        ({"kernel": 4, "stride": 2, "padding": 1}, [1, 2, 2, 2, 2, 2, 2, 2, 2, 1]),
        ({"kernel": 2, "stride": 2}, [1] * 10),
        ({"kernel": 3, "stride": 2, "padding": 1, "output_padding": 1}, [1, 2, 1, 2, 1, 2, 1, 2, 1, 1]),
        ({"kernel": 1, "stride": 2}, [1, 0, 1, 0, 1, 0, 1, 0, 1]),
    ],
)
def test_overlap_counts_that_are_known(arguments: dict[str, int], along_an_axis: list[int]) -> None:
    geom = lab.layer(5, **arguments)
    assert (lab.overlap(geom) == np.outer(along_an_axis, along_an_axis)).all()


def test_checkerboard_by_counts_and_by_sums() -> None:
    uneven, even = lab.layer(5, 3, stride=2, padding=1), lab.layer(5, 4, stride=2, padding=1)
    assert lab.checkerboard(uneven).counts.tolist() == [[4, 2], [2, 1]]
    assert not lab.checkerboard(uneven).even
    assert lab.checkerboard(even).even
    # k = 2s − 1 is uneven in counts, and its bilinear filter makes up for it
    odd = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])[None, None]
    assert lab.checkerboard(uneven, odd).even
    assert lab.checkerboard(uneven, odd).sums.tolist() == [[[[1, 1], [1, 1]]]]
    # even counts do not help a filter whose phases differ
    w = np.ones((1, 1, 4, 4))
    w[0, 0, 0] = 3  # a row of phase 0
    assert lab.checkerboard(even, w).sums.tolist() == [[[[8, 8], [4, 4]]]]
    assert lab.checkerboard(even, w).verdict.startswith("checkerboard: every pixel inside gets 4 products, but")
    # channels that make up for each other where both are 1 do not where one is
    opposite = np.ones((2, 1, 4, 4))
    opposite[0, 0, 0] = opposite[1, 0, 1] = 3
    board = lab.checkerboard(lab.layer(5, 4, 2, 1, channels=(2, 1)), opposite)
    assert not board.even
    assert board.verdict.endswith("between 4 and 8 from channel 0 to channel 0, where they differ most")
    opposite[0] = 1
    verdict = lab.checkerboard(lab.layer(5, 4, 2, 1, channels=(2, 1)), opposite).verdict
    assert verdict.endswith("between 4 and 8 from channel 1 to channel 0, where they differ most")
    assert lab.checkerboard(even, np.ones((1, 1, 4, 4), int)).even  # whole numbers are exact
    dent = np.ones((1, 1, 4, 4))
    dent[0, 0, 0, 0] += 1e-9
    assert "between 4 and 4.000000001;" in lab.checkerboard(even, dent).verdict + ";"
    assert "between −3 and 5" in lab.checkerboard(lab.layer(2, 2, 2), np.array([[[[5, -3], [0, 0]]]])).verdict
    with pytest.raises(ValueError, match=r"w has shape \(1, 1, 3, 3\)"):
        lab.checkerboard(even, odd)
    assert "holes" in lab.checkerboard(lab.layer(5, 1, stride=2), np.ones((1, 1, 1, 1))).verdict
    # float32 rounding is no pattern
    tenths = np.full((1, 1, 6, 6), 0.1, np.float32)
    tenths[0, 0, 0, 0] += np.float32(1e-7)
    sums = lab.checkerboard(lab.layer(5, 6, stride=3), tenths).sums
    assert sums.max() > sums.min()
    assert lab.checkerboard(lab.layer(5, 6, stride=3), tenths).even


def test_sums_by_phase_are_what_a_constant_becomes_inside() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        geom, settings = draw(rng, channels=(2, 3))
        w = rng.integers(-5, 6, geom.w_shape).astype(float)
        large = lab.layer(14, geom.w_hw, **{**settings, "padding": (0, 0)}, channels=(2, 3))
        x = F.conv_transpose2d(Tensor(np.ones(large.y_shape)), Tensor(w), **{**settings, "padding": (0, 0)}).numpy()
        (sh, sv), reach = large.stride, [d * (k - 1) for d, k in zip(large.dilation, large.w_hw, strict=True)]
        top, left = (-(-r // s) * s for r, s in zip(reach, (sh, sv), strict=True))  # phase 0, and all taps have scores
        sums = lab.checkerboard(large, w).sums.sum(axis=0)  # all input channels are 1
        assert (sums == x[0, :, top : top + sh, left : left + sv]).all()


@pytest.mark.parametrize(
    ("arguments", "reason", "nearest"),
    [
        ({"input": 4, "kernel": 3, "stride": 2, "output_padding": 2}, "smaller than stride", {"output_padding": 1}),
        ({"input": 4, "kernel": 3, "dilation": 3, "output_padding": 5}, "dilation 3", {"output_padding": 2}),
        ({"input": 1, "kernel": 1, "padding": 2}, "= −3", {"padding": 0}),
        ({"input": 3, "kernel": 4, "stride": 2, "padding": 4}, "= 0", {"padding": 3}),
    ],
)
def test_invalid_layers_name_the_nearest_valid_one(
    arguments: dict[str, int], reason: str, nearest: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        lab.layer(**arguments)
    ((name, value),) = nearest.items()
    assert str(caught.value).endswith(f"the nearest valid setting is {name} {value}")
    assert min(lab.layer(**{**arguments, **nearest}).x_hw) >= 1
    step = 1 if arguments[name] > value else -1  # one step nearer to what was asked for is still invalid
    with pytest.raises(ValueError, match="nearest valid"):
        lab.layer(**{**arguments, name: value + step})


def test_a_kernel_larger_than_the_padded_image() -> None:
    with pytest.raises(ValueError, match=r"4 \+ 2·0 = 4 but the dilated kernel covers 9; .* is padding 3"):
        lab.layer_to(4, kernel=5, dilation=2)
    assert lab.layer_to(4, kernel=5, dilation=2, padding=3).y_hw == (2, 2)
    with pytest.raises(ValueError, match="nearest valid setting is padding 3"):
        lab.layer_to(4, kernel=5, dilation=2, padding=2)


@pytest.mark.parametrize("name", ["input", "kernel", "stride", "dilation"])
def test_values_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=rf"tconv: {name} is 0; at least 1 is needed"):
        lab.layer(**{"input": 3, "kernel": 3, name: 0})
    with pytest.raises(TypeError, match="an int or a pair of ints"):
        lab.layer(**{"input": 3, "kernel": 3, name: 1.5})


def test_channels_out_of_range() -> None:
    with pytest.raises(ValueError, match="channels is"):
        lab.layer(3, 3, channels=(0, 1))
    with pytest.raises(TypeError, match="channels is 'many'"):
        lab.layer(3, 3, channels="many")


def test_pytorch_line_names_every_argument() -> None:
    line = lab.pytorch_line(lab.layer((4, 5), (3, 2), (2, 1), (1, 0), (1, 0), 1, channels=(8, 4)))
    expected = "ConvTranspose2d(8, 4, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), output_padding=(1, 0), "
    assert line == f"torch.nn.{expected}dilation=1, bias=False)"


@pytest.mark.oracle
def test_pytorch_line_gives_the_same_layer() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(11)
    for _ in range(50):
        geom, _ = draw(rng, channels=(2, 3))
        w, y = rng.standard_normal(geom.w_shape), rng.standard_normal(geom.y_shape)
        twin = eval(lab.pytorch_line(geom), {"torch": torch}).double()
        with torch.no_grad():
            twin.weight[...] = torch.from_numpy(w)
            expected = twin(torch.from_numpy(y)).numpy()
        np.testing.assert_allclose(lab.scatter(y, w, geom), expected, rtol=0, atol=1e-12)
