"""Datasets in folders of image files: CamVid, PASCAL VOC, and any two folders of images and masks."""

import hashlib
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minifcn.data.dataset import Sample
from minifcn.data.images import Colors, read_image, read_mask
from minifcn.data.labels import CAMVID_CLASSES, CAMVID_PALETTE, IGNORE, VOC_CLASSES, class_names, voc_palette

__all__ = ["CamVidFolder", "VOCFolder", "PairFolder"]

AnyPath = str | os.PathLike[str]

_JPEG = (".jpg", ".jpeg")
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".webp")


class Pair(NamedTuple):
    """The files of one sample."""

    name: str
    image: Path
    mask: Path


class FolderDataset:
    """Pairs of files, read when asked for. The readers below say which files pair up and what the labels mean."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: Sequence[str],
        palette: NDArray[np.uint8],
        *,
        void: int | None = None,
        colors: Colors | None = None,
    ) -> None:
        self.pairs = tuple(pairs)
        self.classes: tuple[str, ...] = tuple(classes)
        self.palette = palette
        self.num_classes = len(self.classes)
        self.void, self.colors = void, colors

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}: sample {index} of {len(self)}")
        name, image_path, mask_path = self.pairs[index]
        image, raw = read_image(image_path), read_mask(mask_path, self.colors)
        if raw.shape != image.shape[:2]:
            raise ValueError(
                f"{type(self).__name__}: mask {mask_path} is {_size(raw)} but its image {image_path} is "
                f"{_size(image)} (width × height, upright); they must be of one size"
            )
        if self.void is not None:
            raw[raw == self.void] = IGNORE
        bad = np.unique(raw[((raw < 0) | (raw >= self.num_classes)) & (raw != IGNORE)])
        if bad.size:
            raise ValueError(
                f"{type(self).__name__}: {mask_path} holds labels {_some(bad.tolist())}, but the {self.num_classes} "
                f"classes are 0 … {self.num_classes - 1} ({_some(self.classes)}); 255 marks ignored pixels"
            )
        return Sample(image, raw.astype(np.uint8), name)


class CamVidFolder(FolderDataset):
    """CamVid as SegNet distributes it: 480 × 360 street scenes, 11 classes; label 11 (void) is read as 255.

    ``root`` holds a folder of images and one of masks for each split: ``train`` and ``trainannot``, ``val`` and
    ``valannot``, ``test`` and ``testannot``. An image and its mask have the same name up to the extension.

    Args:
        root: the folder that holds them.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        FileNotFoundError: if a folder is missing or has no images.
        ValueError: if images and masks do not pair up.

    Brostow et al. 2009; the 11 classes are those of Badrinarayanan et al. 2017 (SegNet).
    """

    def __init__(self, root: AnyPath, split: str = "train") -> None:
        root = _folder(root, "CamVidFolder")
        present = sorted(p.name.removesuffix("annot") for p in root.glob("*annot") if p.is_dir())
        if split not in present:
            raise FileNotFoundError(
                f"CamVidFolder: {root} has no split {split!r} (a folder {split}annot beside {split}); "
                f"it has {_some(present) or 'none'}"
            )
        pairs = match_pairs(root / split, root / f"{split}annot", "CamVidFolder")
        super().__init__(pairs, CAMVID_CLASSES, CAMVID_PALETTE, void=len(CAMVID_CLASSES))


class VOCFolder(FolderDataset):
    """PASCAL VOC segmentation: 20 object classes and background; 255 (edges, and what is hard to call) is ignored.

    Args:
        root: the folder that holds ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation`` (VOC2012), or
            one that holds it (VOCdevkit), or one that holds that.
        split: a list in ``ImageSets/Segmentation``: ``"train"``, ``"val"``, ``"trainval"``, …

    Raises:
        FileNotFoundError: if a folder or the split's list is missing, or a listed image or mask is.
        ValueError: if the list is empty.

    Everingham et al. 2015, *The PASCAL Visual Object Classes Challenge: A Retrospective*.
    """

    def __init__(self, root: AnyPath, split: str = "train") -> None:
        root = _folder(root, "VOCFolder")
        # Newest year first, where a devkit holds several.
        homes = [root, *(h for pattern in ("VOC20*", "VOCdevkit/VOC20*") for h in sorted(root.glob(pattern))[::-1])]
        home = next((h for h in homes if (h / "JPEGImages").is_dir()), None)
        if home is None:
            raise FileNotFoundError(f"VOCFolder: {root} holds no JPEGImages folder; give VOCdevkit/VOC2012")
        lists = _folder(home / "ImageSets" / "Segmentation", "VOCFolder")
        listing = lists / f"{split}.txt"
        present = sorted(path.stem for path in lists.glob("*.txt"))
        if split not in present:
            raise FileNotFoundError(f"VOCFolder: no list {listing}; the splits there are {_some(present) or 'none'}")
        names = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not names:
            raise ValueError(f"VOCFolder: split {split!r} is empty ({listing} lists no names)")
        images, masks = _folder(home / "JPEGImages", "VOCFolder"), _folder(home / "SegmentationClass", "VOCFolder")
        pairs = [Pair(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names]
        for kind, folder, files in (
            ("images", images, [pair.image.name for pair in pairs]),
            ("masks", masks, [pair.mask.name for pair in pairs]),
        ):
            there = set(os.listdir(folder))
            missing = [file for file in files if file not in there]
            if missing:
                raise FileNotFoundError(
                    f"VOCFolder: {len(missing)} of the {len(names)} {kind} that {listing} lists are not in {folder}: "
                    f"{_some(missing)}"
                )
        super().__init__(pairs, VOC_CLASSES, voc_palette(len(VOC_CLASSES)))


class PairFolder(FolderDataset):
    """Any folder of images and folder of masks, matched by name: ``cat.jpg`` with ``cat.png``.

    Masks are grey or palette images whose values are class numbers, 255 for ignored; with ``colors``, drawn in colours.
    Where one name has several files, the image is the JPEG and the mask the PNG; so both may lie in one folder.

    Without ``classes`` and ``num_classes`` every mask of both splits is read once, and there are as many classes as the
    highest label asks for.

    Args:
        images: the folder of images.
        masks: the folder of masks; may be the same.
        num_classes: how many classes, 2 … 255.
        classes: their names, which also say how many.
        colors: from (red, green, blue) to class number, for masks drawn in colours (any of them: black-and-white
            masks of 0 and 255 are ``{(0, 0, 0): 0, (255, 255, 255): 1}``).
        split: ``"train"``, ``"val"`` or ``"all"``.
        val_fraction: how much of the data is ``"val"``, between 0 and 1. A hash of its name puts each image in one
            split, so that adding images never moves another; the smaller split has at least one image.

    Raises:
        FileNotFoundError: if a folder is missing or holds no images.
        ValueError: if images and masks do not pair up, a split is empty, or the classes are not well defined.
    """

    def __init__(
        self,
        images: AnyPath,
        masks: AnyPath,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        *,
        colors: Colors | None = None,
        split: str = "all",
        val_fraction: float = 0.2,
    ) -> None:
        if split not in ("train", "val", "all"):
            raise ValueError(f"PairFolder: unknown split {split!r}; the splits are train, val, all")
        if not 0 < val_fraction < 1:
            raise ValueError(f"PairFolder: val_fraction is {val_fraction}; it must lie between 0 and 1")
        if classes is not None and num_classes not in (None, len(classes)):
            raise ValueError(f"PairFolder: num_classes is {num_classes} but there are {len(classes)} classes")
        if colors is not None:
            _check_colors(colors)
        pairs = match_pairs(images, masks, "PairFolder")
        if classes is None:
            classes = class_names(_count_classes(pairs, colors) if num_classes is None else num_classes)
        if not 2 <= len(classes) <= IGNORE:
            raise ValueError(f"PairFolder: {len(classes)} classes; 8-bit labels have room for 2 to 255")
        chosen = [
            pair
            for pair, is_val in zip(pairs, _in_val(pairs, val_fraction), strict=True)
            if split == "all" or is_val == (split == "val")
        ]
        if not chosen:
            raise ValueError(f"PairFolder: split {split!r} is empty ({len(pairs)} image in all); use split 'all'")
        super().__init__(chosen, classes, voc_palette(len(classes)), colors=colors)


def _in_val(pairs: Sequence[Pair], fraction: float) -> list[bool]:
    """Which pairs belong to the validation split: each by its own name alone, but neither split empty if avoidable."""
    hashes = [int.from_bytes(hashlib.blake2b(pair.name.encode(), digest_size=8).digest()) / 2**64 for pair in pairs]
    cut = min(max(fraction, min(hashes)), math.nextafter(max(hashes), 0))
    return [h <= cut for h in hashes]


def _count_classes(pairs: Sequence[Pair], colors: Colors | None) -> int:
    if colors is not None:
        labels = [label for label in colors.values() if label != IGNORE]
        return max(labels, default=0) + 1
    highest = 0
    for pair in pairs:
        mask = read_mask(pair.mask)
        highest = max(highest, int(mask.max(where=mask != IGNORE, initial=0)))
    if highest == 0:
        raise ValueError(
            f"PairFolder: the masks beside {pairs[0].mask} hold only 0 and 255 (ignored), so one class; "
            "number the classes 0, 1, …, or in Python open the folder with colors={(0, 0, 0): 0, (255, 255, 255): 1}"
        )
    return highest + 1


def _check_colors(colors: Colors) -> None:
    for color, label in colors.items():
        if len(color) != 3 or not all(0 <= part <= 255 for part in color) or not 0 <= label <= IGNORE:
            raise ValueError(
                f"PairFolder: colors has {color}: {label}; expected (red, green, blue): class, each 0 … 255"
            )
    if not colors:
        raise ValueError("PairFolder: colors is empty; expected {(red, green, blue): class, …}")


def match_pairs(images: AnyPath, masks: AnyPath, op: str) -> list[Pair]:
    """Pair the files of two folders by name, sorted.

    Raises:
        FileNotFoundError: if a folder is missing or holds no images.
        ValueError: if an image has no mask or a mask no image.
    """
    images, masks = _folder(images, op), _folder(masks, op)
    if images.samefile(masks):  # the extension is all that tells them apart
        photos, labels = _files(images, _JPEG), _files(masks, _LOSSLESS)
    else:
        photos, labels = _files(images, _JPEG + _LOSSLESS), _files(masks, _LOSSLESS + _JPEG)
    if not photos:
        raise FileNotFoundError(f"{op}: no images in {images}; expected files such as name.jpg or name.png")
    for kind, other, left, there in (("images", "mask", photos, labels), ("masks", "image", labels, photos)):
        alone = sorted(path.name for stem, path in left.items() if stem not in there)
        if alone:
            folder, where = (images, masks) if kind == "images" else (masks, images)
            raise ValueError(
                f"{op}: {len(alone)} of {len(left)} {kind} in {folder} have no {other} of the same name in {where}: "
                f"{_some(alone)}"
            )
    return [Pair(stem, photos[stem], labels[stem]) for stem in sorted(photos)]


def _folder(path: AnyPath, op: str) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{op}: no folder {path}; check the path")
    if not path.is_dir():
        raise NotADirectoryError(f"{op}: {path} is not a folder; give the folder that holds the files")
    return path


def _files(folder: Path, suffixes: Sequence[str]) -> Mapping[str, Path]:
    """The image files of a folder by stem; where a stem has several, the extension that comes first in suffixes."""
    best: dict[str, tuple[int, Path]] = {}
    for path in folder.iterdir():
        suffix = path.suffix.lower()
        if suffix not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        found = (suffixes.index(suffix), path)
        best[path.stem] = min(best.get(path.stem, found), found)
    return {stem: path for stem, (_, path) in best.items()}


def _some(things: Collection[object]) -> str:
    """The first few of many, for a message."""
    shown = ", ".join(str(thing) for thing in list(things)[:4])
    return shown + (", …" if len(things) > 4 else "")


def _size(array: NDArray[np.integer]) -> str:
    return f"{array.shape[1]} × {array.shape[0]}"
