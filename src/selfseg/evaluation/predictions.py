"""What fine-tuned networks predict, beside the labels: a page of the few-label curve's kept networks.

W. Van Gansbeke et al., "Unsupervised Semantic Segmentation by Contrasting Object Mask Proposals", ICCV 2021 (arXiv
2102.06191), figure 5: networks fine-tuned on 1 % of the labels of PASCAL VOC, from ImageNet's weights and from
MaskContrast's. Ours shows images evenly over the measured split instead of chosen ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.false_colours import painter_of
from selfseg.data.labelled.catalog import LabelledImages
from selfseg.data.reading.images import spread_indices
from selfseg.drawing.figures import figure
from selfseg.drawing.pictures import fit_within, hex_colour, palette
from selfseg.errors import BadImage
from selfseg.evaluation.measure.confusion import VOID
from selfseg.pages.comparison import colour_classes
from selfseg.pages.gallery import Gallery, Part, Row, Shown, write_gallery
from selfseg.segmenter.segmenter import load_segmenter

_LONGEST = 480  # of a picture, in px


@dataclass(frozen=True)
class Kept:
    """A kept network.

    Attributes:
        what: which contender.
        labels: the share of the labels that it learned from, in percent.
        images: how many images that is.
        miou: of the whole measured split.
        folder: of its segmenter.
    """

    what: str
    labels: float
    images: int
    miou: float
    folder: Path


def write_predictions_page(
    path: Path,
    title: str,
    kept: Sequence[Kept],
    measured: LabelledImages,
    fit_images: int,
    count: int = 6,
    device: str = "auto",
) -> Path:
    """Draw what kept networks predict for some images of the measured split, and write the page.

    Args:
        path: of the page.
        title: of the run.
        kept: the networks, those of a share beside each other in this order.
        measured: the split.
        fit_images: labelled images of the other split, of which the networks had a share.
        count: how many images, evenly over the split.
        device: see `selfseg.load`.

    Returns:
        The page's path.

    Raises:
        CheckpointError: if a network is damaged.
        StorageError: if the page can't be written.
    """
    chosen = spread_indices(len(measured), count)
    pairs: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
    for index in chosen:
        try:
            pairs[index] = measured.images.read(index), measured.read_label(index)
        except BadImage:
            continue
    colours, painter = palette(len(measured.class_names)), painter_of(measured.images)
    predicted: dict[Path, dict[int, NDArray[np.uint8]]] = {}
    for one in kept:  # one network in memory at a time
        segmenter = load_segmenter(one.folder, device)
        predicted[one.folder] = {index: segmenter(image) for index, (image, _) in pairs.items()}
    parts, notes = [], []
    for share in dict.fromkeys(one.labels for one in kept):
        group = [one for one in kept if one.labels == share]
        rows = tuple(
            _row(
                measured.images.names[index],
                painter(pairs[index][0]),
                pairs[index][1],
                {k.what: predicted[k.folder][index] for k in group},
                colours,
                painter.word("photograph"),
            )
            for index in pairs
        )
        first = predicted[group[0].folder]
        if len(group) > 1 and all(
            np.array_equal(first[index], predicted[one.folder][index]) for one in group[1:] for index in pairs
        ):
            notes.append(
                f"With {share:g} % of the labels both networks predict the same everywhere. Fine-tuning begins at the "
                "features before the embedding's last layer; where a run has learned only that layer (a pyramid's "
                "correction on a frozen backbone), both begin as one, and this comparison says nothing about the run."
            )
        parts.append(
            Part(
                f"{share:g} % of the labels: {group[0].images} of {fit_images} images",
                f"mIoU of all {len(measured)} images of {measured.split}: "
                + ", ".join(f"{one.what} {one.miou:.3f}" for one in group)
                + ". Under each picture: the share of its labelled pixels that are right.",
                rows,
                2 + len(group),
                tuple((name, hex_colour(colour)) for name, colour in zip(measured.class_names, colours, strict=True)),
            )
        )
    gallery = Gallery(
        brand="predictions after fine-tuning",
        title=title,
        facts=(
            ("data", measured.name),
            ("measured on", f"{measured.split}, {len(measured)} images"),
            ("shown", f"{len(pairs)} images"),
        ),
        lead=(
            "The same network was fine-tuned twice on the same few labelled images: from the run's weights (embedder), "
            "and from what the run itself began from. The pictures are of the first split of the labels. Their images "
            "lie evenly over what is measured, and were not chosen by how well they come out.",
            "A few pictures show what kind of mistakes there are. They can't tell whether one start is better: for "
            "that look at the mIoU and its spread over splits (the curve in the run's report).",
            *painter.note,
        ),
        parts=tuple(parts),
        source=f"{measured.root}",
        notes=notes,
    )
    return write_gallery(path, gallery)


def _row(
    name: str,
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    predictions: Mapping[str, NDArray[np.uint8]],
    colours: NDArray[np.uint8],
    caption: str,
) -> Row:
    known = label != VOID

    def painted(classes: NDArray[np.uint8], what: str, caption: str) -> Shown:
        picture = colour_classes(np.where(known, classes, VOID).astype(np.uint8), colours)
        return Shown(figure(fit_within(picture, _LONGEST), f"{name}: {what}"), caption)

    pictures = [Shown(figure(fit_within(image, _LONGEST), name), caption), painted(label, "labels", "labels")]
    for what, prediction in predictions.items():
        right = f"{(prediction == label)[known].mean():.1%} right" if known.any() else "no labels"
        pictures.append(painted(prediction, f"{what}, {right}", f"{what}: {right}"))
    return Row(name, tuple(pictures))
