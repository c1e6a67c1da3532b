"""MaskContrast's mathematics in float64 against numbers of its reference implementation (the file beside this one).

Their queue is a ring of columns with a pointer, ours has the newest first: a ring that is written from column 0 on
holds its oldest there. Their class weights were computed in float32, hence the tolerance.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.data.views.object_crops import ObjectCrops
from selfseg.methods.maskcontrast import MaskContrast, MaskContrastConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.ops.objectives.pixel_contrast import balanced_object_weight, contrast_pixels, object_vectors

FILE = Path(__file__).parent / "maskcontrast_seed0.npz"


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-7, rtol=0)


@pytest.fixture(name="golden")
def _golden() -> dict[str, Tensor]:
    with np.load(FILE, allow_pickle=False) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@pytest.fixture(name="method")
def _method(golden: dict[str, Tensor]) -> Iterator[MaskContrast]:
    dim, size = golden["queue_before"].shape
    config = MaskContrastConfig(
        embedder=EmbedderConfig(backbone="resnet10t", output_stride=32, decoder="linear", dim=dim, saliency=True),
        views=ObjectCrops(),
        queue=size,
        temperature=float(golden["T"]),
        weighting="object",
        saliency_loss="balanced",
    )
    method = MaskContrast(config).double()
    assert int(golden["queue_ptr_before"]) == 0
    method.queue.push(golden["queue_before"].T.flip(0))
    return method


def objects(mask: Tensor) -> Tensor:
    return torch.where(mask > 0, 0, -1)


def test_object_vectors_logits_and_weights_equal_the_reference(golden: dict[str, Tensor], method: MaskContrast) -> None:
    images, dim = golden["k_raw"].shape[:2]
    image = torch.arange(images)[:, None, None]
    vectors = object_vectors(golden["k_raw"], torch.where(golden["mask_k"] > 0, image, -1), images)
    close(vectors, golden["key_prototypes"])
    keys = torch.cat([vectors, golden["queue_before"].T])
    pixels = F.normalize(golden["q_raw"], dim=1).permute(0, 2, 3, 1)[golden["mask_q"] > 0]
    close(pixels @ keys.T / golden["T"], golden["logits"])

    target = torch.where(golden["mask_q"] > 0, image, -1)
    loss, found = contrast_pixels(golden["q_raw"], target, keys, float(golden["T"]))
    close(loss, F.cross_entropy(golden["logits"], golden["labels"], reduction="none"))
    assert torch.equal(found, golden["logits"].argmax(1) == golden["labels"])
    close(loss.mean(), golden["loss_contrastive_unweighted"])

    share = torch.bincount(golden["labels"], minlength=len(keys)) / len(pixels)
    torch.testing.assert_close(balanced_object_weight(share), golden["class_weight"])
    assert dim == len(golden["queue_before"])


def test_losses_gradients_and_queue_equal_the_reference(golden: dict[str, Tensor], method: MaskContrast) -> None:
    queries, saliency = golden["q_raw"].requires_grad_(), golden["sal_logit"].requires_grad_()
    ids = objects(golden["mask_q"]), objects(golden["mask_k"])
    output = method.compare(queries, saliency, golden["k_raw"], *ids)
    output.loss.backward()
    close(output.loss.detach(), golden["loss_total"])
    close(output.logs["loss_contrast"], golden["loss_contrastive"])
    close(output.logs["loss_saliency"], golden["loss_saliency"])
    assert queries.grad is not None
    assert saliency.grad is not None
    close(queries.grad, golden["grad_q_raw"])
    close(saliency.grad, golden["grad_sal_logit"])
    written = int(golden["queue_ptr_after"])
    close(method.queue.vectors[:written], golden["queue_after"].T[:written])
    close(method.queue.vectors[written:], golden["queue_after"].T[written:].flip(0))
