"""Scores by tiles: those of the whole image, from no more pixels than it takes, in the memory of one tile."""

import numpy as np
import pytest
from PIL import Image

import minifcn as mf
from minifcn import models, nn
from minifcn.autograd import Tensor, no_grad
from minifcn.cli import main
from minifcn.data import Sample, Shapes
from minifcn.geometry import CoordMap
from minifcn.models import parts
from minifcn.models.field import seen, sees
from minifcn.models.summary import peak_bytes
from minifcn.training import evaluate, inference, predict, tiles
from minifcn.training.checkpoint import ModelCard, save_weights
from minifcn.training.tiles import Tile, cut, largest_side, scores_by_tiles

# name → the deepest stride; one network for each way in which layers, fusions and enlargements are put together
FAMILIES = {
    "fcn8s_vgg16": 32,
    "fcn8s_vgg16_paper": 32,
    "fcn32s_vgg11_paper": 32,
    "fcn16s_vgg11_bn": 32,
    "fcn8s_alexnet": 32,
    "fcn8s_alexnet_paper": 32,
    "fcn8s_googlenet": 32,
    "fcn8s_resnet18": 32,
    "fcn8s_resnet18_aligned": 32,
    "fcn8s_resnet50_aligned": 32,
    "fcn16s_decoder_vgg11": 32,
    "fcn16s_decoder_resnet18": 32,
    "fcn_resnet50": 8,
    "unet": 16,
    "hed": 16,
}
FAMILY = pytest.mark.parametrize("name", FAMILIES)


def positive(name):
    """In float64, with weights above 0 and biases of 0: a score is above 0 exactly where it sees a pixel above 0 (no
    term cancels another, and no ReLU or pooling hides one)."""
    model = models.create(name, 2, width=1 / 64, seed=0)
    rng = np.random.default_rng(0)
    for name, p in model.named_parameters():
        p.data = rng.uniform(0.1, 1, p.shape) * (not name.endswith("bias"))
    return model.to(np.float64).eval()


def random(name):
    """In float64, with nothing about it that is special; its scores are about 1."""
    model = models.create(name, 2, width=1 / 64, seed=0)
    rng = np.random.default_rng(1)
    for p in model.parameters():
        fan = np.prod(p.shape[1:]) if p.ndim == 4 else 100
        p.data = rng.normal(0.1, 1, p.shape) * np.sqrt(2 / fan)
    for b in model.buffers():
        if b.dtype.kind == "f":
            b.data[...] = rng.uniform(0.5, 1.5, b.shape)
    return model.to(np.float64).eval()


def whole(model, x):
    with no_grad():
        return model(Tensor(x)).numpy()


def part(model, x, tile):
    """The scores of one tile of x (N,C,H,W)."""
    with no_grad():
        read = Tensor(np.ascontiguousarray(x[(..., *tile.read)]))
        return parts.scores(model, read, tile.read, tile.kept, x.shape[2:]).numpy()


@FAMILY
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_tiles_make_the_scores_of_the_whole_image(name, turned):
    """To rounding: a matrix product sums in another order where the matrix has another width."""
    model, side = random(name), 2 * FAMILIES[name] if FAMILIES[name] > 8 else 128
    size = (71, 611) if turned else (611, 71)
    x = np.random.default_rng(2).standard_normal((1, 3, *size))
    expected = whole(model, x)
    found = np.full_like(expected, np.nan)
    with no_grad():
        for kept, scores in scores_by_tiles(model, lambda at: Tensor(x[(..., *at)].copy()), size, side):
            assert np.isnan(found[(..., *kept)]).all()
            found[(..., *kept)] = scores.numpy()
    assert np.ptp(expected) > 1e-3 * np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@FAMILY
@pytest.mark.parametrize("axis", [0, 1])
def test_what_a_tile_reads_is_all_that_its_scores_see_and_begins_no_stride_too_early(name, axis):
    """Rows of light at the first and last pixel that are said to be seen, and one beyond each: the first two show in
    the whole image's scores, the others do not; and where less is read, the scores lack them."""
    model, stride = positive(name), FAMILIES[name]
    assert parts.stride(model) == stride
    middle = 100 * stride  # far from borders, to which bilinear enlargement clamps
    margin = middle - parts.pixels(model, (middle, middle), axis, 2 * middle)[0]
    start = -(-(margin + 2) // stride) * stride
    size = [3 * start + stride + 5] * 2  # 5: a size that no stride divides
    size[1 - axis] = 37
    first, last = parts.pixels(model, (start, start + stride - 1), axis, size[axis])
    x = np.zeros((4, 3, *size))
    for image, at in zip(x, (first, last, first - 1, last + 1), strict=True):
        image[(slice(None), at) if axis == 0 else (..., at)] = 1
    kept = [slice(0, 37), slice(0, 37)]
    kept[axis] = slice(start, start + stride)
    scores = whole(model, x)[(..., *kept)]
    assert [bool(s.any()) for s in scores] == [True, True, False, False]

    tile = next(t for t in cut(model, tuple(size), stride) if t.kept[axis].start == start)
    assert (tile.read[axis].start, tile.read[axis].stop) == (first // stride * stride, last + 1)
    np.testing.assert_allclose(part(model, x, tile), scores[..., : tile.kept[0].stop, : tile.kept[1].stop], rtol=1e-12)
    for shorter, image in (
        (slice(tile.read[axis].start + stride, last + 1), 0),
        (slice(tile.read[axis].start, last), 1),
    ):
        read = list(tile.read)
        read[axis] = shorter
        assert part(model, x[image : image + 1], tile).any()
        assert not part(model, x[image : image + 1], Tile(tile.kept, tuple(read))).any()


@pytest.mark.parametrize(("start", "seen"), [(0, (9, 14)), (5, (9, 19)), (-5, (9, 20))])
def test_a_map_that_is_cropped_makes_the_scores_see_further(start, seen):
    """Rows 10 … 13 of a network by hand. A 3×3 convolution makes "fine", and a 2×2 pooling "deep", which is doubled and
    laid onto fine: on rows 10 … 13, which come from deep's 5 and 6 and see the pixels 9 … 14. If fine is cropped by 5
    first, its rows 15 … 18 are added, which see 14 … 19; if the enlarged map is, deep's 7 … 9 see 13 … 20 instead."""
    at, fine, pool, up = CoordMap(), nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2, 2), nn.ConvTranspose2d(1, 1, 2, 2)
    crop = (start, start)
    fusion = models.fcn.Fusion("fine", "up", up, at, at, at, crop, crop, joins=True, told=False)

    class Crooked(nn.Module):
        def layers(self):
            return {"fine": [fine], "deep": [pool]}

        def fusions(self):
            return (fusion,)

    assert parts.pixels(Crooked(), (10, 13), 0, 100) == parts.pixels(Crooked(), (10, 13), 1, 100) == seen


def test_a_tile_that_begins_elsewhere_would_be_another_grid():
    """Why tiles begin on multiples of the stride."""
    model, x = random("unet"), np.random.default_rng(3).standard_normal((1, 3, 400, 16))
    expected = whole(model, x)[:, :, 192:208]
    kept, columns = slice(192, 208), slice(0, 16)
    for begin, equal in ((64, True), (72, False)):
        found = part(model, x, Tile((kept, columns), (slice(begin, 400), columns)))
        assert np.allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max()) == equal


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 1, 3, padding=1),
        nn.Conv2d(1, 1, 3, stride=2, dilation=2, padding=5),
        nn.MaxPool2d(3, 2, padding=1),
        nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1),
        nn.ConvTranspose2d(1, 1, 15, stride=8, padding=7),
        nn.ConvTranspose2d(1, 1, 3, stride=2, dilation=3),
        nn.ReLU(),
    ],
    ids=repr,
)
def test_a_run_of_cells_sees_from_the_first_to_the_last_that_its_cells_see(layer):
    for first in range(-9, 9):
        cells = (first, first + 15)
        each = [cell for u in range(first, first + 16) for cell in seen([layer], u)]
        assert sees(layer, cells, 0) == sees(layer, cells, 1) == (min(each), max(each))


def test_the_kept_parts_cover_the_image_once():
    tiled = np.zeros((100, 333), int)
    for tile in cut(models.create("unet", width=1 / 64), tiled.shape, 48):
        tiled[tile.kept] += 1
        assert all(r.start <= k.start < k.stop <= r.stop for k, r in zip(tile.kept, tile.read, strict=True))
    assert (tiled == 1).all()


# -- memory


def photo(height, width=64):
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def one_thread():
    """Whose buffers are all that there are: how many of several threads' are in use at a time is chance."""
    before = mf.get_num_threads()
    mf.set_num_threads(1)
    yield
    mf.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_memory_is_that_of_a_tile_however_large_the_image_is():
    model = models.create("unet", 3, width=1 / 8, seed=0)  # so wide that Python's own objects do not count
    short, long = photo(320), photo(1280)
    peaks = [peak_bytes(lambda image=image: predict(model, image, tile=64)) for image in (short, long)]
    extra = long[..., 0].size - short[..., 0].size  # the classes themselves, a byte per pixel
    assert peaks[1] - peaks[0] - extra < 0.02 * peaks[0]
    assert peak_bytes(lambda: predict(model, long)) > 3 * peaks[1]


def test_the_largest_side_keeps_to_the_memory_and_uses_it(monkeypatch):
    monkeypatch.setattr(tiles, "_PROBE", 256)
    model = models.create("unet", 3, width=1 / 32, seed=0)
    image = photo(700, 200)
    memory = peak_bytes(lambda: predict(model, image))
    side = largest_side(model, image.shape[:2], memory)
    peak = peak_bytes(lambda: predict(model, image, tile=side))
    assert side % 16 == 0
    assert 0.4 * memory < peak < memory
    assert largest_side(model, image.shape[:2], 10 * memory) is None
    with pytest.raises(ValueError, match=r"tiles: the smallest tiles, 16×16 pixels .* need about \d+ MB, and 0 MB may"):
        largest_side(model, image.shape[:2], 1000)


def test_free_memory_is_what_the_system_tells(monkeypatch):
    assert 1 << 20 < tiles.free_memory() < 1 << 50
    texts = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 3000 kB\n"}
    monkeypatch.setattr(tiles, "_text", lambda path: texts.get(path, ""))
    assert tiles.free_memory() == 3000 * 1024
    texts |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "5\n"}
    assert tiles.free_memory() == 3000 * 1024
    texts["/sys/fs/cgroup/memory.max"] = "1005\n"
    assert tiles.free_memory() == 1000


# -- predict


@pytest.mark.parametrize("name", ["fcn8s_resnet18_aligned", "fcn_resnet50", "unet"])
def test_predict_shows_the_same_classes_and_leaves_the_mode(name):
    model, image = models.create(name, 4, width=1 / 16, seed=2), photo(171, 203)
    model.train()
    expected = predict(model, image)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(predict(model, image, tile=64), expected)
    assert model.training


def test_what_cannot_be_tiled_is_said():
    unet = models.create("unet", width=1 / 64)
    with pytest.raises(
        ValueError, match="tiles: a side of 100 pixels; a multiple of the network's stride 16, such as 96"
    ):
        predict(unet, photo(9), tile=100)
    with pytest.raises(ValueError, match="such as 16, is needed"):
        predict(unet, photo(9), tile=0)
    with pytest.raises(TypeError, match="tiles: a Sequential does not tell what its scores see"):
        predict(nn.Sequential(nn.Conv2d(3, 2, 1)), photo(9), tile=32)
    with pytest.raises(TypeError, match="uint8"):
        predict(unet, photo(9).astype(np.float32), tile=16)
    with pytest.raises(ValueError, match=r"image is \(1, 30\); expected \(H, W, 3\)"):
        predict(unet, np.zeros((40, 30), np.uint8), tile=16)


@pytest.mark.parametrize("name", ["fcn8s_resnet18_aligned", "fcn_resnet50"])
def test_predict_by_tiles_where_the_network_is(name, device):
    model, image = models.create(name, 4, width=1 / 16, seed=2), photo(75, 50)
    expected = predict(model, image)
    assert len(np.unique(expected)) > 1
    found = predict(model.to(device), image, device, tile=32)
    assert np.mean(found != expected) < (0.01 if device == "cuda" else 1e-9)  # float32 on another processor


class _Photos(Shapes):
    """Photographs of two sizes, labelled with what a scene shows, and void in a corner."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        size = (90, 203) if index < 3 else (64, 75)
        truth = Shapes(4, size, split="val")[index].labels.copy()
        truth[:40, :50] = 255
        return Sample(photo(*size), truth, f"photo {index}")


def test_evaluation_by_tiles_counts_the_same_pixels(monkeypatch):
    model, photos = models.create("unet", 6, width=1 / 16, seed=2), _Photos()
    matrix, loss = evaluate(model, photos)
    assert np.count_nonzero(matrix.counts.sum(axis=0)) > 1  # of several classes
    assert matrix.counts.sum() == sum(np.count_nonzero(photos[k].labels != 255) for k in range(4))
    cuts = []
    monkeypatch.setattr(tiles, "cut", lambda *given: cuts.append(given[1:]) or cut(*given))
    by_tiles = evaluate(model, photos, tile=32)
    assert np.array_equal(by_tiles[0].counts, matrix.counts)
    assert by_tiles[1] == pytest.approx(loss, rel=1e-6)
    assert set(cuts) == {((90, 203), 32), ((64, 75), 32)}
    cuts.clear()
    monkeypatch.setattr(inference, "largest_side", lambda module, size: 48 if size == (90, 203) else None)
    assert np.array_equal(evaluate(model, photos, tile="auto")[0].counts, matrix.counts)
    assert set(cuts) == {((90, 203), 48)}
    with pytest.raises(ValueError, match=r"evaluate: tile is 'large'; a side in pixels, \"auto\" or None is needed"):
        evaluate(model, photos, tile="large")


def test_the_command_evaluates_by_tiles(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minifcn.data.open_dataset", lambda *words, **options: _Photos())
    card = ModelCard("unet", 6, {"width": 1 / 16})
    save_weights(tmp_path / "unet.safetensors", models.create("unet", 6, width=1 / 16, seed=2), card)
    words = ["eval", str(tmp_path / "unet.safetensors"), "--data", "shapes"]
    reports = []
    for tile in ([], ["--tile", "64"], ["--tile", "auto"]):
        assert main([*words, *tile]) == 0
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1] == reports[2]
    assert main([*words, "--tile", "50"]) == 2
    assert "a multiple of the network's stride 16, such as 48, is needed" in capsys.readouterr().err


@pytest.fixture
def weights(tmp_path):
    card = ModelCard("unet", 4, {"width": 1 / 16})
    model = models.create("unet", 4, width=1 / 16, seed=2)
    save_weights(tmp_path / "unet.safetensors", model, card)
    Image.fromarray(photo(320, 90)).save(tmp_path / "large.png")
    return tmp_path


def labels(folder, *words):
    command = ["predict", folder / "unet.safetensors", folder / "large.png", "--out", folder / "out", "--overwrite"]
    assert main([str(word) for word in (*command, *words)]) == 0
    return np.asarray(Image.open(folder / "out" / "large_labels.png"))


def test_the_command_gives_the_same_picture_by_tiles(weights, monkeypatch):
    cuts = []
    monkeypatch.setattr(tiles, "cut", lambda *given: cuts.append(given[2]) or cut(*given))
    expected = labels(weights)
    assert len(np.unique(expected)) > 1
    assert cuts == []
    assert np.array_equal(labels(weights, "--tile", "32"), expected)
    assert np.array_equal(labels(weights, "--tile", "auto"), expected)
    assert cuts == [32]  # there is memory for the whole image
    monkeypatch.setattr(tiles, "free_memory", lambda: 16_000_000)
    assert np.array_equal(labels(weights, "--tile", "auto"), expected)
    assert len(cuts) == 2


def test_the_command_cannot_measure_a_gpus_memory(weights, monkeypatch, capsys):
    monkeypatch.setattr(inference, "choose_device", lambda name: "cuda")
    command = ["predict", weights / "unet.safetensors", weights / "large.png", "--tile", "auto"]
    assert main([str(word) for word in command]) == 2
    assert "with a GPU give a number, such as --tile 512" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["33"], "a multiple of the network's stride 16, such as 32, is needed"),
        (["0"], "'0' is no whole number above 0"),
        (["big"], "'big' is no whole number above 0, nor auto"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_tile(weights, capsys, words, sentence):
    command = ["predict", weights / "unet.safetensors", weights / "large.png", "--out", weights / "out", "--tile"]
    assert main([str(word) for word in (*command, *words)]) == 2
    text = capsys.readouterr().err
    assert sentence in text
    assert text.count("\n") == 1
