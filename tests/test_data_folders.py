"""Reading images, masks and folders of them; and one clear sentence for everything that can be wrong with them."""

import shutil

import numpy as np
import pytest
from PIL import Image

from minifcn.data import (
    CAMVID_CLASSES,
    VOC_CLASSES,
    CamVidFolder,
    PairFolder,
    VOCFolder,
    read_image,
    read_mask,
    voc_palette,
)

RNG = np.random.default_rng(0)


def photo(path, height=6, width=8, **options):
    """Write a random RGB image; return its pixels."""
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def mask(path, labels, palette=False):
    """Write a label map as a grey or palette image; return it."""
    labels = np.array(labels, np.uint8)
    image = Image.fromarray(labels)
    if palette:
        image.putpalette(voc_palette(256).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return labels


def random_mask(path, classes=3, height=6, width=8, palette=False):
    labels = RNG.integers(0, classes, (height, width))
    labels[0, :2] = classes - 1, 255
    return mask(path, labels, palette)


# ---- read_image


def test_an_rgb_image_is_read_as_it_is(tmp_path):
    pixels = photo(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)
    assert np.array_equal(read_image(str(tmp_path / "a.png")), pixels)


def test_grey_rgba_palette_and_bilevel_images_become_rgb(tmp_path):
    grey = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))
    rgba = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), rgba[..., :3])
    labels = mask(tmp_path / "palette.png", grey, palette=True)
    assert np.array_equal(read_image(tmp_path / "palette.png"), voc_palette(256)[labels])
    image = Image.open(tmp_path / "palette.png")
    image.save(tmp_path / "clear.png", transparency=bytes(range(256)))
    assert np.array_equal(read_image(tmp_path / "clear.png"), voc_palette(256)[labels])
    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png")[..., 2], np.where(grey > 99, 255, 0))


def test_16_bits_are_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 257, 128 * 257, 65535, 40000]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        # Full scale stays full scale: 65535 = 255 · 257.
        assert read_image(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255, round(40000 / 257)]
        assert read_image(tmp_path / name).shape == (1, 5, 3)


def test_numbers_without_a_scale_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif holds floating-point numbers"):
        read_image(tmp_path / "float.tif")
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "long.tif")
    with pytest.raises(ValueError, match=r"long\.tif has values from 70000 to 70000"):
        read_image(tmp_path / "long.tif")


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),  # the camera lay on its left side: turn clockwise
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = photo(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright(pixels))


# ---- read_mask


@pytest.mark.parametrize("palette", [False, True])
def test_grey_and_palette_masks_are_their_numbers(tmp_path, palette):
    labels = random_mask(tmp_path / "m.png", 21, palette=palette)
    assert np.array_equal(read_mask(tmp_path / "m.png"), labels)


def test_bilevel_and_16_bit_masks_are_their_numbers(tmp_path):
    bits = RNG.random((5, 4)) > 0.5
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(read_mask(tmp_path / "bits.png"), bits)
    deep = RNG.integers(0, 1000, (5, 4), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_mask(tmp_path / "deep.png"), deep)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_in_colors_says_so_and_what_to_do(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(
        ValueError, match=rf"m\.png is {mode}; convert it to class indices .* open the folder with colors="
    ):
        read_mask(tmp_path / "m.png")


def test_a_jpeg_mask_is_refused_whatever_its_name(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "m.jpg")
    shutil.copy(tmp_path / "m.jpg", tmp_path / "m.png")
    for name in ("m.jpg", "m.png"):
        with pytest.raises(ValueError, match=rf"{name} is a JPEG file, whose compression corrupts labels; .* PNG"):
            read_mask(tmp_path / name)


def test_colors_are_looked_up(tmp_path):
    colors = {(200, 10, 10): 2, (0, 0, 0): 0, (255, 255, 255): 255, (10, 10, 200): 1}
    table = {label: color for color, label in colors.items()}
    labels = RNG.choice([0, 1, 2, 255], (6, 8))
    pixels = np.array([[table[int(label)] for label in row] for row in labels], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([pixels, RNG.integers(0, 256, (6, 8), dtype=np.uint8)])).save(tmp_path / "rgba.png")
    Image.fromarray(pixels).quantize(8).save(tmp_path / "palette.png")
    for name in ("rgb.png", "rgba.png", "palette.png"):
        assert np.array_equal(read_mask(tmp_path / name, colors), labels)
    black_and_white = mask(tmp_path / "l.png", RNG.choice([0, 255], (6, 8)))
    assert np.array_equal(read_mask(tmp_path / "l.png", {(0, 0, 0): 0, (255, 255, 255): 1}), black_and_white // 255)


def test_an_unknown_color_is_named(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3], [0, 0, 0], [9, 9, 9]]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(
        ValueError, match=r"m\.png has 2 colours that colors= lacks \(first: \(1, 2, 3\), \(9, 9, 9\)\)"
    ):
        read_mask(tmp_path / "m.png", {(0, 0, 0): 0})
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits"):
        read_mask(tmp_path / "deep.png", {(0, 0, 0): 0})


# ---- Files that cannot be read, by either


@pytest.fixture(params=[read_image, read_mask])
def read(request):
    return request.param


def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=rf"{read.__name__}: no file {tmp_path}/no\.png; check the path"):
        read(tmp_path / "no.png")


def test_a_folder_is_no_image(tmp_path, read):
    with pytest.raises(IsADirectoryError, match=rf"{read.__name__}: {tmp_path} is a folder"):
        read(tmp_path)


def test_an_empty_file_and_a_text_are_no_images(tmp_path, read):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=rf"{tmp_path}/a\.png is empty \(0 bytes\)"):
        read(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    with pytest.raises(ValueError, match=rf"{tmp_path}/b\.png is not an image that Pillow knows"):
        read(tmp_path / "b.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "gif"])
def test_a_truncated_file_is_named(tmp_path, read, suffix):
    path = tmp_path / f"a.{suffix}"
    photo(path, 60, 80)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match=rf"{read.__name__}: {path} is truncated or damaged \(.*\); copy it again"):
        read(path)


# ---- CamVidFolder


def camvid(root, split="train", count=3):
    for i in range(count):
        photo(root / split / f"f{i}.png")
        labels = RNG.integers(0, 12, (6, 8))
        labels[0, 0] = 11
        mask(root / f"{split}annot" / f"f{i}.png", labels)
    return root


def test_camvid_reads_11_classes_and_void_as_ignored(tmp_path):
    camvid(tmp_path)
    camvid(tmp_path, "val", 1)
    data = CamVidFolder(tmp_path, "train")
    assert (len(data), data.num_classes, data.classes) == (3, 11, CAMVID_CLASSES)
    assert [s.name for s in data] == ["f0", "f1", "f2"]
    raw = np.array(Image.open(tmp_path / "trainannot" / "f1.png"))
    image, labels, _ = data[1]
    assert np.array_equal(labels, np.where(raw == 11, 255, raw))
    assert labels.dtype == np.uint8
    assert np.array_equal(image, np.array(Image.open(tmp_path / "train" / "f1.png")))
    assert len(CamVidFolder(str(tmp_path), "val")) == 1


def test_camvid_images_may_be_jpeg_under_png_masks(tmp_path):
    camvid(tmp_path, count=1)
    (tmp_path / "train" / "f0.png").unlink()
    photo(tmp_path / "train" / "f0.JPG")
    assert CamVidFolder(tmp_path, "train")[0].image.shape == (6, 8, 3)


def test_camvid_labels_above_void_are_named(tmp_path):
    camvid(tmp_path)
    mask(tmp_path / "trainannot" / "f2.png", [[12] * 8] * 5 + [[30] * 8])
    message = r"f2\.png holds labels 12, 30, but the 11 classes are 0 … 10 \(Sky, Building, Pole, Road, …\); 255 marks"
    with pytest.raises(ValueError, match=message):
        CamVidFolder(tmp_path, "train")[2]


def test_camvid_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"CamVidFolder: no folder {tmp_path}/nowhere"):
        CamVidFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no split 'train' .* it has none"):
        CamVidFolder(tmp_path)
    camvid(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no split 'test' .* it has train"):
        CamVidFolder(tmp_path, "test")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match=rf"no folder {tmp_path}/train;"):
        CamVidFolder(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"no images in {tmp_path}/train; expected files such as name\.jpg"):
        CamVidFolder(tmp_path, "train")


# ---- VOCFolder


def voc(home, names=("2007_1", "2008_2"), split="train"):
    for name in names:
        photo(home / "JPEGImages" / f"{name}.jpg")
        random_mask(home / "SegmentationClass" / f"{name}.png", 21, palette=True)
    photo(home / "JPEGImages" / "unlisted.jpg")
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names) + "\n")
    return home


@pytest.mark.parametrize("above", [0, 1, 2])
def test_voc_reads_the_listed_pairs_from_any_folder_above(tmp_path, above):
    home = voc(tmp_path / "VOCdevkit" / "VOC2012")
    data = VOCFolder([home, home.parent, tmp_path][above], "train")
    assert [s.name for s in data] == ["2007_1", "2008_2"]
    assert (data.num_classes, data.classes) == (21, VOC_CLASSES)
    assert np.array_equal(data[1].labels, np.array(Image.open(home / "SegmentationClass" / "2008_2.png")))
    assert np.array_equal(data[1].image, np.array(Image.open(home / "JPEGImages" / "2008_2.jpg")))
    assert 255 in data[0].labels


def test_voc_faults_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no JPEGImages folder"):
        VOCFolder(tmp_path)
    voc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no list .*/vla\.txt; the splits there are train"):
        VOCFolder(tmp_path, "vla")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match="split 'val' is empty"):
        VOCFolder(tmp_path, "val")
    (tmp_path / "SegmentationClass" / "2008_2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 masks that .*train\.txt lists are not in .*: 2008_2\.png"):
        VOCFolder(tmp_path, "train")
    (tmp_path / "JPEGImages" / "2007_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images .*: 2007_1\.jpg"):
        VOCFolder(tmp_path, "train")


# ---- PairFolder


def pairs(root, count=6, classes=3):
    for i in range(count):
        photo(root / "images" / f"p{i}.png")
        random_mask(root / "masks" / f"p{i}.png", classes)
    return root / "images", root / "masks"


def test_a_pair_of_folders_is_matched_by_name(tmp_path):
    images, masks = pairs(tmp_path)
    (images / "notes.txt").write_text("not an image")
    (images / "._p0.png").write_text("what a Mac leaves behind")
    data = PairFolder(images, masks)
    assert len(data) == 6
    assert (data.num_classes, data.classes) == (3, ("class 0", "class 1", "class 2"))  # counted
    for image, labels, name in data:
        assert np.array_equal(image, np.array(Image.open(images / f"{name}.png")))
        assert np.array_equal(labels, np.array(Image.open(masks / f"{name}.png")))
    assert np.array_equal(data.palette, voc_palette(3))
    assert PairFolder(images, masks, num_classes=7).num_classes == 7
    assert PairFolder(images, masks, classes=["sky", "sea", "land"]).classes == ("sky", "sea", "land")


def test_images_and_masks_may_share_a_folder(tmp_path):
    for i in range(3):
        photo(tmp_path / f"p{i}.jpg")
        random_mask(tmp_path / f"p{i}.png", 5, palette=True)
    data = PairFolder(tmp_path, tmp_path / ".." / tmp_path.name)
    assert [pair.image.suffix + pair.mask.suffix for pair in data.pairs] == [".jpg.png"] * 3
    assert data.num_classes == 5


def test_splits_share_nothing_and_stay_when_images_are_added(tmp_path):
    images, masks = pairs(tmp_path, 60)
    before = {
        split: {pair.name for pair in PairFolder(images, masks, 3, split=split).pairs} for split in ("train", "val")
    }
    assert before["train"] | before["val"] == {f"p{i}" for i in range(60)}
    assert not before["train"] & before["val"]
    assert 4 <= len(before["val"]) <= 20  # 12 on average
    for i in range(60, 80):
        photo(images / f"p{i}.png")
        random_mask(masks / f"p{i}.png")
    for split, names in before.items():
        assert names <= {pair.name for pair in PairFolder(images, masks, 3, split=split).pairs}


@pytest.mark.parametrize("fraction", [1e-9, 0.2, 1 - 1e-9])
def test_two_images_are_enough_for_both_splits(tmp_path, fraction):
    images, masks = pairs(tmp_path, 2)
    for split in ("train", "val"):
        assert len(PairFolder(images, masks, 3, split=split, val_fraction=fraction)) == 1


def test_one_image_has_no_validation_split(tmp_path):
    images, masks = pairs(tmp_path, 1)
    with pytest.raises(ValueError, match=r"split 'val' is empty \(1 image in all\); use split 'all'"):
        PairFolder(images, masks, 3, split="val")


def test_images_and_masks_without_partner_are_counted_and_named(tmp_path):
    images, masks = pairs(tmp_path)
    for i in range(5):
        (masks / f"p{i}.png").unlink()
    message = rf"5 of 6 images in {images} have no mask .* in {masks}: p0\.png, p1\.png, p2\.png, p3\.png, …"
    with pytest.raises(ValueError, match=message):
        PairFolder(images, masks)
    images, masks = pairs(tmp_path)
    (images / "p2.png").unlink()
    with pytest.raises(
        ValueError, match=rf"1 of 6 masks in {masks} have no image of the same name in {images}: p2\.png"
    ):
        PairFolder(images, masks)


def test_a_mask_of_another_size_is_named_with_both(tmp_path):
    images, masks = pairs(tmp_path)
    random_mask(masks / "p3.png", height=8, width=6)
    with pytest.raises(ValueError, match=rf"mask {masks}/p3\.png is 6 × 8 but its image {images}/p3\.png is 8 × 6"):
        PairFolder(images, masks)[3]


def test_labels_out_of_range_are_named(tmp_path):
    images, masks = pairs(tmp_path, classes=9)
    message = r"p0\.png holds labels 2, 3, 4, 5, …, but the 2 classes are 0 … 1 \(sea, land\); 255 marks ignored pixels"
    with pytest.raises(ValueError, match=message):
        PairFolder(images, masks, classes=["sea", "land"])[0]
    Image.fromarray(np.full((6, 8), 300, np.uint16)).save(masks / "p0.png")
    with pytest.raises(ValueError, match=r"p0\.png holds labels 300, but the 9 classes"):
        PairFolder(images, masks, 9)[0]


def test_black_and_white_masks_are_explained_and_can_be_read(tmp_path):
    images, masks = pairs(tmp_path, 3)
    for i in range(3):
        mask(masks / f"p{i}.png", RNG.choice([0, 255], (6, 8)))
    with pytest.raises(
        ValueError, match=r"hold only 0 and 255 .* open the folder with colors=\{\(0, 0, 0\): 0, \(255, 255, 255\): 1\}"
    ):
        PairFolder(images, masks)
    data = PairFolder(images, masks, colors={(0, 0, 0): 0, (255, 255, 255): 1})
    assert data.num_classes == 2
    assert np.array_equal(data[1].labels, np.array(Image.open(masks / "p1.png")) // 255)


def test_pair_folder_arguments_are_checked(tmp_path):
    images, masks = pairs(tmp_path, 2)
    for arguments, message in (
        ({"split": "test"}, "unknown split 'test'; the splits are train, val, all"),
        ({"val_fraction": 1.0}, r"val_fraction is 1\.0"),
        ({"num_classes": 3, "classes": ["a", "b"]}, "num_classes is 3 but there are 2 classes"),
        ({"num_classes": 256}, "256 classes"),
        ({"num_classes": 1}, "1 classes"),
        ({"colors": {(0, 0, 300): 1}}, r"colors has \(0, 0, 300\): 1"),
        ({"colors": {}}, "colors is empty"),
    ):
        with pytest.raises(ValueError, match=f"PairFolder: {message}"):
            PairFolder(images, masks, **arguments)
    with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/no"):
        PairFolder(tmp_path / "no", masks)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        PairFolder(images, tmp_path / "file")
    with pytest.raises(IndexError, match="sample 2 of 2"):
        PairFolder(images, masks)[2]
