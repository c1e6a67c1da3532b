"""ViCE's mathematics against numbers of its reference implementation (files beside this one).

Their convention: mean of the raw embeddings per region, then unit length; one mean over all regions of the batch, then
over the views; view 0 is assigned; the queue is scored with today's prototypes after the batch's rows.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.methods.vice import ViCE, ViCEConfig
from selfseg.models.embedder import EmbedderConfig
from selfseg.ops.regions.pool_regions import common_regions


@pytest.mark.parametrize("name", ["vice_seed0_noqueue", "vice_seed0_queue"])
def test_every_intermediate_equals_the_reference(name: str) -> None:
    with np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False) as file:
        golden = {key: torch.from_numpy(file[key].astype(file[key].dtype)) for key in file.files}
    # In float64, so that only the reference's rounding is in the differences, and none of this machine's kernels.
    golden = {key: value.double() if value.is_floating_point() else value for key, value in golden.items()}
    prototypes, dim = golden["prototypes"].shape
    config = ViCEConfig(
        embedder=EmbedderConfig(dim=dim, output_stride=32),
        views=ContentCentredViews(views=3, size=48),
        prototypes=prototypes,
        temperature=float(golden["temperature"]),
        epsilon=float(golden["epsilon"]),
        sinkhorn_iterations=int(golden["sinkhorn_iters"]),
        queue=golden["queue"].shape[0] if "queue" in golden else 0,
        pool="raw",
        average="batch",
    )
    method = ViCE(config).double()
    with torch.no_grad():
        method.prototypes.weight.copy_(golden["prototypes"])
        if "queue" in golden:
            method.queue.push(golden["queue"])
    embedding = golden["emb"].requires_grad_()

    regions = common_regions(golden["regions"].long())
    vectors = method.pool(embedding, regions)
    assignment = method.assign(vectors[0])
    output = method.compare(vectors, regions, images=2, progress=1.0)
    output.loss.backward()

    assert torch.equal(regions.id, golden["region_ids"].long())
    assert torch.equal(torch.bincount(regions.image), golden["rows_per_image"])
    torch.testing.assert_close(vectors, golden["region_mean_norm"], atol=1e-6, rtol=0)
    torch.testing.assert_close(assignment, golden["assignment"], atol=1e-6, rtol=0)
    assert output.loss.item() == pytest.approx(float(golden["loss"]), abs=1e-6)
    assert embedding.grad is not None
    assert method.prototypes.weight.grad is not None
    torch.testing.assert_close(embedding.grad, golden["grad_emb"], atol=1e-8, rtol=0)
    # These gradients are sums of hundreds of float32 terms of size 0.1: both sides carry their rounding.
    torch.testing.assert_close(method.prototypes.weight.grad, golden["grad_prototypes"], atol=3e-7, rtol=0)
    if "queue" in golden:
        torch.testing.assert_close(method.queue.vectors, golden["queue_after"], atol=1e-6, rtol=0)


def test_per_image_average_equals_the_papers_nested_loops() -> None:
    with np.load(Path(__file__).parent / "vice_seed0_noqueue.npz", allow_pickle=False) as file:
        regions = common_regions(torch.from_numpy(file["regions"]).long())
        embedding = torch.from_numpy(file["emb"]).double()  # float64: the two sides differ by their formulas only
        weight = torch.from_numpy(file["prototypes"]).double()
    config = ViCEConfig(
        embedder=EmbedderConfig(dim=16, output_stride=32),
        views=ContentCentredViews(views=3, size=48),
        prototypes=8,
        queue=0,
        pool="raw",
    )
    method = ViCE(config).double()
    with torch.no_grad():
        method.prototypes.weight.copy_(weight)
    vectors = method.pool(embedding, regions)
    assignment = method.assign(vectors[0])

    expected = 0.0
    for image in range(2):
        for view in (1, 2):
            rows = (regions.image == image).nonzero().flatten().tolist()
            terms = [-(assignment[i] * torch.log_softmax(vectors[view, i] @ weight.T / 0.1, dim=0)).sum() for i in rows]
            expected += float(sum(terms) / len(rows)) / (2 * 2)
    got = method.compare(vectors, regions, images=2, progress=1.0).loss.item()
    assert got == pytest.approx(expected, abs=2e-7)  # the weights of images are float32
    pooled = ViCE(replace(config, average="batch")).double()
    pooled.load_state_dict(method.state_dict())
    assert pooled.compare(vectors, regions, images=2, progress=1.0).loss.item() != pytest.approx(got, abs=1e-6)
