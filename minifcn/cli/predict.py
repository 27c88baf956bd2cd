"""`minifcn predict`: segment images with a trained network."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from minifcn.cli.options import add_device, add_tile, check_tile
from minifcn.cli.reporting import OK, USER_ERROR, complain, say, sentence_of

_JPEG = (".jpg", ".jpeg")
_IMAGES = (*_JPEG, ".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".webp")


def execute(arguments: argparse.Namespace) -> int:
    from minifcn.data import overlay, read_image, voc_palette
    from minifcn.training.checkpoint import load_model
    from minifcn.training.inference import choose_device, predict
    from minifcn.training.pictures import save_labels, save_picture
    from minifcn.training.tiles import AUTO, largest_side

    device = choose_device(arguments.device)
    check_tile("predict", arguments.tile, device)
    images = _image_files(arguments.images)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"predict: --out {out} is a file; a folder is needed")
    jobs = _output_files(images, out, arguments.overwrite)
    module, card = load_model(arguments.weights)
    if card.num_classes == 1:
        raise ValueError(
            f"predict: {card.describe()} has one class, so every pixel would be of it; two or more are needed "
            "(examples/edges_hed.py draws what HED finds)"
        )
    module.to(device)
    palette = card.palette or voc_palette(card.num_classes)  # a card need not have one
    out.mkdir(parents=True, exist_ok=True)
    code = OK
    for image, labels_file, overlay_file in jobs:
        try:
            pixels = read_image(image)
        except (ValueError, OSError) as error:  # the other images need not wait until this one is mended
            sentence = sentence_of(error)
            if sentence is None:
                raise
            complain(sentence)
            code = USER_ERROR
            continue
        side = arguments.tile
        if side == AUTO:
            side = largest_side(module, (pixels.shape[0], pixels.shape[1]))
        labels = predict(module, pixels, device, side)
        save_labels(labels_file, labels, palette)
        save_picture(overlay_file, overlay(pixels, labels, palette))
        say(f"{image}: {labels_file} and {overlay_file.name}")
    return code


def _image_files(names: Iterable[str]) -> list[Path]:
    """The images that were named, and those in the folders that were named.

    Where a folder holds a JPEG and another file of the same stem, the JPEG is the photograph and the other its mask,
    which is said.
    """
    found: list[Path] = []
    for path in map(Path, names):
        if not path.exists():
            raise FileNotFoundError(f"predict: there is no file or folder {path}; check the path")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGES and not p.name.startswith("."))
        photos = {p.stem for p in inside if p.suffix.lower() in _JPEG}
        masks = [p for p in inside if p.suffix.lower() not in _JPEG and p.stem in photos]
        if masks:
            more = f" and {len(masks) - 1} more" if len(masks) > 1 else ""
            say(f"{masks[0]}{more}: taken for the mask of the JPEG of that name, not for an image")
        inside = [p for p in inside if p not in masks]
        if not inside:
            raise FileNotFoundError(f"predict: no images in {path}; files such as name.jpg or name.png are needed")
        found += inside
    return found


def _output_files(images: Sequence[Path], out: Path, overwrite: bool) -> list[tuple[Path, Path, Path]]:
    """(image, labels file, overlay file) for each image; everything that speaks against one is said before any work."""
    jobs: dict[str, tuple[Path, Path, Path]] = {}
    for image in images:
        if image.stem in jobs:
            other = jobs[image.stem][0]
            raise ValueError(f"predict: {other} and {image} would write the same files; predict them into two folders")
        jobs[image.stem] = (image, out / f"{image.stem}_labels.png", out / f"{image.stem}_overlay.png")
    there = [str(file) for _, *files in jobs.values() for file in files if file.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise FileExistsError(f"predict: {there[0]}{more} exist already; give --overwrite or another --out")
    return list(jobs.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", metavar="RUN|WEIGHTS", help="folder of a run, or a weights file")
    parser.add_argument("images", metavar="IMAGE|FOLDER", nargs="+", help="images, or folders of images")
    parser.add_argument("--out", default="predictions", metavar="DIR", help="folder to write to (predictions)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add_tile(parser)
    add_device(parser)
