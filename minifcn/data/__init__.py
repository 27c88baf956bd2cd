"""Labelled images: where they come from, how they are changed, and how they reach the network in batches."""

from minifcn.data.dataset import Dataset, Sample, class_weights, median_frequency_weights, some_samples
from minifcn.data.folders import CamVidFolder, PairFolder, VOCFolder
from minifcn.data.images import read_image, read_mask
from minifcn.data.labels import (
    CAMVID_CLASSES,
    CAMVID_PALETTE,
    IGNORE,
    IGNORE_COLOR,
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    VOC_CLASSES,
    colorize,
    overlay,
    voc_palette,
)
from minifcn.data.loading import Batch, Loader, part_of
from minifcn.data.shapes import Shapes
from minifcn.data.skipping import Skipping, count_stand_ins
from minifcn.data.spec import absolute, open_dataset
from minifcn.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Augment, denormalize, normalize, resize

__all__ = [
    # labels.py: what the numbers mean
    "IGNORE",
    "IGNORE_COLOR",
    "VOC_CLASSES",
    "CAMVID_CLASSES",
    "SHAPES_CLASSES",
    "voc_palette",
    "CAMVID_PALETTE",
    "SHAPES_PALETTE",
    "colorize",
    "overlay",
    # dataset.py: what a dataset is
    "Sample",
    "Dataset",
    "some_samples",
    "class_weights",
    "median_frequency_weights",
    # shapes.py, images.py, folders.py, spec.py: where samples come from
    "Shapes",
    "read_image",
    "read_mask",
    "CamVidFolder",
    "VOCFolder",
    "PairFolder",
    "open_dataset",
    "absolute",
    # skipping.py: what stands in for damaged files
    "Skipping",
    "count_stand_ins",
    # transforms.py: how they are changed
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "normalize",
    "denormalize",
    "resize",
    "Augment",
    # loading.py: how they reach the network
    "Batch",
    "Loader",
    "part_of",
]
