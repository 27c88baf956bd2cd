"""From classifier to FCN: train a small classifier on crops, reshape two weights, and it labels whole images at once.

Run it: python examples/classifier_to_fcn.py
"""

import numpy as np

import minifcn as mf
import minifcn.functional as F
from minifcn import nn
from minifcn.data import IGNORE, Shapes, normalize
from minifcn.models import surgery
from minifcn.models.summary import summarize

CROP, STRIDE = 18, 4  # pixels of a crop; the two poolings halve twice
rng = np.random.default_rng(0)
mf.manual_seed(0)


def draw(count, size, split):
    """The package's own scenes: images (3, H, W), and labels (H, W): 0 is the ground, 1 … 5 are objects."""
    scenes = Shapes(count, size, split=split)
    return [(normalize(image), labels) for image, labels, _ in (scenes[k] for k in range(count))]


def crops(scenes, count):
    """Crops (count, 3, 18, 18) from random places, and whether their middle shows an object (1) or the ground (0)."""
    images, answers = [], []
    while len(images) < count:
        image, labels = scenes[rng.integers(len(scenes))]
        h, v = rng.integers(0, np.array(labels.shape) - CROP + 1)
        middle = labels[h + CROP // 2, v + CROP // 2]
        if middle != IGNORE:
            images.append(image[:, h : h + CROP, v : v + CROP])
            answers.append(int(middle > 0))
    return mf.Tensor(np.stack(images)), np.array(answers)


# ---- 1. A classifier. Without padding 18 pixels become 16, 8, 6, 3: the first fully connected layer sees (16, 3, 3).
features = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2)
)
fc1, fc2 = nn.Linear(16 * 3 * 3, 32), nn.Linear(32, 2)
classifier = nn.Sequential(features, nn.Flatten(), fc1, nn.ReLU(), fc2)
optimizer = mf.optim.Adam(classifier.parameters(), lr=2e-3)
seen, unseen = draw(200, (64, 64), "train"), draw(50, (64, 64), "val")
for _ in range(200):
    images, answers = crops(seen, 64)
    loss = F.cross_entropy(classifier(images), answers)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
classifier.eval()
images, answers = crops(unseen, 1000)
with mf.no_grad():
    right = np.mean(classifier(images).numpy().argmax(axis=1) == answers)
print(f"Object or ground? Right on {right:.0%} of 1000 unseen crops, of which {answers.mean():.0%} show an object.")


# ---- 2. A fully connected layer on a map (C, I, J) is a convolution whose filter is as large as the map. Its weights
# (O, C·I·J) are the filter's in the very order in which Flatten went through the map, so reshaping is all there is.
fcn = surgery.convolutionize(classifier, (3, CROP, CROP))
assert np.array_equal(fcn[2].weight, fc1.weight.data.reshape(32, 16, 3, 3))
assert np.array_equal(fcn[4].weight, fc2.weight.data.reshape(2, 32, 1, 1))
with mf.no_grad():
    one_cell, same = fcn(images).numpy(), classifier(images).numpy()
difference = np.abs(one_cell[:, :, 0, 0] - same).max()
print(
    f"As convolutions they give a crop scores {one_cell[0].shape}, and differ from the classifier by {difference:.0e}."
)

# the weights read as (H, W, C), the order in which Keras flattens
mixed_up = surgery.convolutionize(classifier, (3, CROP, CROP), order="HWC")
with mf.no_grad():
    answered = mixed_up(images).numpy()[:, :, 0, 0].argmax(axis=1)
print(f"Read as H, W, C instead of C, H, W they fit as well, and are right on {np.mean(answered == answers):.0%}.")

# ---- 3. Now any size goes in, and every cell of the result is the classifier's answer for its own crop.
image, labels = draw(1, (64, 160), "test")[0]
windows = np.lib.stride_tricks.sliding_window_view(image, (CROP, CROP), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
with mf.no_grad():
    dense = fcn(image[None]).numpy()[0]  # (2, P, Q), in one pass
    cells = mf.Tensor(windows.transpose(1, 2, 0, 3, 4).reshape(-1, 3, CROP, CROP))
    sliding = classifier(cells).numpy().T.reshape(dense.shape)  # crop by crop
once, each = (summarize(net, hw, memory=False).macs for net, hw in ((fcn, image.shape[1:]), (classifier, (CROP, CROP))))
print(f"\nAn image {image.shape}: {dense.shape[1]} × {dense.shape[2]} cells, in one pass and crop by crop.")
print(f"  largest difference   {np.abs(dense - sliding).max():.0e}")
print(f"  one pass             {once / 1e6:7.2f} million multiplications")
print(f"  crop by crop         {each * len(cells) / 1e6:7.2f} million, {each * len(cells) / once:.1f} times as many")

probability = F.softmax(mf.Tensor(dense), dim=0).numpy()[1]
rows, columns = probability.shape
truth = labels[CROP // 2 :: STRIDE, CROP // 2 :: STRIDE][:rows, :columns]  # at the middles of the crops
print("\nThe heat map, from ' ' for ground to '@' for an object, and on its right where the objects are:")
for row, there in zip(probability, truth, strict=True):
    print("  " + "".join(" .:-=+*#%@"[int(9.99 * p)] for p in row) + "   " + "".join(" o"[int(t > 0)] for t in there))
known = truth != IGNORE
print(f"Right in {np.mean((probability > 0.5)[known] == (truth > 0)[known]):.0%} of the cells.")
