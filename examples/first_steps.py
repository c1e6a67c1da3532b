# %% [markdown]
# # First steps
#
# You have images and no labels. In this notebook you let selfseg find out which parts of the images look alike, you
# look at what it found, give names to three of the groups, and get masks as arrays. At the end you measure how good
# they are.
#
# It takes two to three minutes of one processor core; no GPU is needed, and nothing is downloaded. To run it yourself,
# open it in a clone of the repository, from its folder `examples`, after `pip install '.[demo]' jupyterlab`.

# %%
import io
import sys
from pathlib import Path

import numpy as np
from IPython.display import Image as Shown
from PIL import Image

import selfseg

sys.path.append("../benchmarks")  # of the clone: where the photographs are cut
from studio_photographs import CLASSES, draw

WORK = Path("runs/first_steps")  # everything that is written goes here


def show(*pictures, columns=4, width=240):
    """Arrays (H, W, 3) uint8 side by side."""
    small = [Image.fromarray(picture) for picture in pictures]
    small = [picture.resize((width, round(width * picture.height / picture.width))) for picture in small]
    height = max(picture.height for picture in small)
    rows = -(-len(small) // columns)
    sheet = Image.new("RGB", (min(len(small), columns) * (width + 4), rows * (height + 4)), "white")
    for place, picture in enumerate(small):
        sheet.paste(picture, (place % columns * (width + 4), place // columns * (height + 4)))
    written = io.BytesIO()
    sheet.save(written, "JPEG", quality=82)
    return Shown(written.getvalue(), format="jpeg")


# %% [markdown]
# ## 1. Images
#
# The images are 42 cuts of seven photographs that are already on your disk, inside of the packages scikit-image,
# scikit-learn and matplotlib. For your own images, put the path of their folder in place of `images`. Have some
# hundred of one kind: groups are interesting when the same things occur in many images.

# %%
images = draw(WORK / "data")
files = sorted(images.iterdir())
show(*(np.asarray(Image.open(file)) for file in files[:8]))

# %% [markdown]
# ## 2. An embedding
#
# The recipe `pyramid` takes a network that was trained on ImageNet, which comes with selfseg, and fits it to your
# images. It trains nothing, so it is quick. Look at what it finds before you train: a training has to beat it. To
# train on your images, take `vice_small` in its place, which takes some minutes.
#
# What comes back is the *run*, a folder with all that belongs to these images. The last line of a cell shows it.

# %%
from selfseg.recipe_book.pyramid import pyramid

run = selfseg.train(pyramid(images, WORK / "run"), progress=False)
run

# %% [markdown]
# `load` gives the embedder, a `torch.nn.Module`. It makes a vector for every place of an image: here 96 numbers for
# every fourth pixel. It takes a file, an array, a tensor or a PIL image.

# %%
embedder = selfseg.load(run)
embedder

# %%
photograph = np.asarray(Image.open(files[0]))
vectors = embedder.embed(photograph)
photograph.shape, tuple(vectors.shape)

# %% [markdown]
# 96 numbers can't be looked at. Three of their directions can, as red, green and blue: the three in which the vectors
# of these images differ most. Places of the same colour have similar vectors.

# %%
some = [np.asarray(Image.open(file)) for file in files[:4]]
embedded = [embedder.embed(image).flatten(1).numpy() for image in some]
mean = np.concatenate(embedded, axis=1).mean(1, keepdims=True)
directions = np.linalg.svd(np.concatenate(embedded, axis=1) - mean, full_matrices=False)[0][:, :3]
seen = [directions.T @ (each - mean) for each in embedded]  # (3, cells) each
low, high = np.percentile(np.concatenate(seen, axis=1), (2, 98), axis=1)[..., None]


def coloured(image, values):
    """Three numbers at each place as a picture of the image's size."""
    h, w = embedder.embed(image).shape[1:]
    levels = np.clip((values - low) / (high - low), 0, 1) * 255
    picture = levels.T.reshape(h, w, 3).astype(np.uint8)
    return np.asarray(Image.fromarray(picture).resize(image.shape[1::-1]))


show(*some, *(coloured(image, values) for image, values in zip(some, seen, strict=True)))

# %% [markdown]
# ## 3. Groups
#
# `cluster` puts the pixels of all images together into groups of similar vectors, the *clusters*. You choose how
# many. Too few put different things together, too many cut things into parts; parts are no harm, since several
# clusters may get one name.

# %%
selfseg.cluster(run, images, k=[16], progress=False)

# %% [markdown]
# A number says nothing. So look at the clusters over the photographs. `segment` writes a mask of cluster numbers for
# every image, and the photograph under the clusters' colours.

# %%
selfseg.segment(run, images, WORK / "segments", progress=False)

# %% [markdown]
# Some of them for themselves: each row is a cluster, with the four images in which it is largest, and what is not in
# it is dark. The first two rows are the sky of two photographs, the third is a building. The last one is bad: suit,
# flag and shuttle of one photograph are in it together. With more clusters they come apart; until then such a cluster
# gets no name.

# %%
index = {file.stem: np.asarray(Image.open(WORK / "segments/index" / f"{file.stem}.png")) for file in files}


def cut_out(image, inside):
    """The image, dark where it is not inside."""
    return np.where(inside[..., None], image, image // 5)


def best(number, count=4):
    """The images in which a cluster is largest, with everything else darkened."""
    largest = sorted(files, key=lambda file: -(index[file.stem] == number).mean())[:count]
    return [cut_out(np.asarray(Image.open(file)), index[file.stem] == number) for file in largest]


show(*best(2), *best(10), *best(7), *best(0))

# %% [markdown]
# ## 4. Names
#
# You say what a cluster is. Several clusters may get one name, and a cluster without a name belongs to no class: its
# pixels are *void*. The numbers below are of the run that you see here. On your machine, and with your images, look
# first: the numbers may be others.
#
# `selfseg studio` does the same in a browser, and lets you split clusters and correct single places.

# %%
names = {2: "sky", 10: "sky", 7: "building", 1: "cat", 11: "cat"}
selfseg.name_clusters(run, names, k=16)

# %%
selfseg.load_clusters(run, 16)

# %% [markdown]
# ## 5. Masks
#
# `apply` writes masks of your classes, for these images or for any others.

# %%
selfseg.apply(run, images, WORK / "masks", progress=False)

# %% [markdown]
# In Python there is no need for files. The segmenter takes an image and gives its mask, an array of the image's size:
# the number of the class at each pixel, 255 where there is none. `probabilities` says how sure it claims to be.

# %%
segmenter = selfseg.load_segmenter(run)
segmenter

# %%
photograph = np.asarray(Image.open(next(file for file in files if "pagoda" in file.stem)))
mask = segmenter(photograph)
print(mask.shape, mask.dtype)
{name: float((mask == value).mean().round(3)) for value, name in enumerate(segmenter.legend.names)}

# %%
show(photograph, cut_out(photograph, mask == 0), cut_out(photograph, mask == 1), columns=3)

# %% [markdown]
# Everything that takes a folder of images takes arrays, tensors and PIL images, too. With names, files get them:

# %%
upside_down = {"pagoda_upside_down": photograph[::-1], "first": Image.open(files[0])}
selfseg.apply(segmenter, upside_down, WORK / "from_arrays", progress=False)

# %% [markdown]
# ## 6. How good is it?
#
# Masks look convincing long before they are right. To know, you need labels of some images. These photographs come
# with labels that were drawn by hand, a few pixels off here and there. For your own images, `selfseg studio` measures
# with a few dozen questions, or you label some images in any tool (`docs/labels.md`).
#
# First your own names. For each, the IoU: the area that mask and label have in common, divided by the area that
# either of them covers. 1 is perfect.

# %%
classes = CLASSES[1:]  # the first is void, whose value in the labels is 0
labelled = WORK / "labelled/val"  # a folder as `evaluate` wants it: images, and labels in which void is 255
for kind in ("images", "labels"):
    (labelled / kind).mkdir(parents=True, exist_ok=True)
for file in files:
    (labelled / "images" / file.name).write_bytes(file.read_bytes())
    label = np.asarray(Image.open(WORK / "data/train/labels" / file.name))
    Image.fromarray(label - 1).save(labelled / "labels" / file.name)  # bytes: 0 - 1 is 255
lines = [f"{value} {name}\n" for value, name in enumerate(classes)]
Path(WORK / "labelled/classes.txt").write_text("".join([*lines, "255 void\n"]))

common, either = np.zeros(3), np.zeros(3)
for file in files:
    mask, label = segmenter(file), np.asarray(Image.open(labelled / "labels" / file.name))
    for value, name in enumerate(segmenter.legend.names):
        named, true = (mask == value) & (label != 255), label == classes.index(name)
        common[value] += (named & true).sum()
        either[value] += (named | true).sum()
{name: float((common[value] / either[value]).round(2)) for value, name in enumerate(segmenter.legend.names)}

# %% [markdown]
# Then the clusters without any names of yours. `evaluate` groups the pixels three times with different seeds, gives
# each cluster the class that most of its pixels have by the labels, and measures what comes out. So this says how
# good names could be, and it is measured on the very images in which the clusters were found, which are cuts of seven
# photographs only. What helps is the comparison: colour, and colour with position, are what you get without a
# network.

# %%
selfseg.evaluate(
    run,
    WORK / "labelled",
    [selfseg.Clusters(k=(16,))],
    reading=selfseg.Reading(split="val", fit_split="val"),
    seeds=3,
)

# %% [markdown]
# ## Where to go from here
#
# - `selfseg studio runs/first_steps/run runs/first_steps/data/train/images` opens these clusters in a browser.
# - `selfseg.report(run)` makes one page of all that was found.
# - `docs/tutorial.md` goes through every output and says when training helps; `docs/reference/python.md` lists what can
#   be called from Python, and which of it takes arrays.
#
# The photographs: astronaut by NASA, rocket by SpaceX and officer (Grace Hopper) by James S. Davis, US Navy, are in
# the public domain; coffee by Rachel Michetti, courtesy of Pikolo Espresso Bar, and cat by Stefan van der Walt are
# CC0. Pagoda by [danielbuechele](https://www.flickr.com/photos/danielbuechele/6061409035/) and flower by
# [vultilion](https://www.flickr.com/photos/vultilion/6056698931/) are [CC BY
# 2.0](https://creativecommons.org/licenses/by/2.0/). All are shown cut, made smaller, and under colours.
