from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.data.labelled.catalog import open_labelled
from selfseg.errors import ConfigError, LabelError, RunError
from selfseg.evaluation.measure.confusion import cross_counts
from selfseg.evaluation.measure.features import Batched, Extractor, embedder_extractor, positioned
from selfseg.evaluation.measure.passes import (
    AffineHead,
    RefinedHead,
    _Counter,
    at_pixels,
    count,
    predict,
    predict_refined,
    sample,
)
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.crf import CRFConfig, refine


@pytest.mark.parametrize(("cells", "size"), [((6, 8), (48, 64)), ((5, 7), (33, 50)), ((20, 20), (9, 13))])
def test_a_pixel_is_what_resizing_gives(cells, size):
    embedding = torch.randn(4, *cells)
    whole = F.interpolate(embedding[None], size, mode="bilinear", align_corners=False)[0]
    places = np.random.default_rng(0).permutation(size[0] * size[1])[:200]
    assert torch.allclose(
        at_pixels(embedding, places, size), whole.flatten(1)[:, torch.from_numpy(places)].T, atol=1e-4
    )


@pytest.mark.parametrize("size", [(24, 32), (6, 8)])
def test_interpolated_scores_are_scores_of_the_interpolated_embedding(size):
    embedding = torch.randn(5, 6, 8, dtype=torch.float64)
    head = AffineHead(torch.randn(7, 5, dtype=torch.float64), torch.randn(7, dtype=torch.float64))
    whole = F.interpolate(embedding[None], size, mode="bilinear", align_corners=False)[0]
    expected = (torch.einsum("nd,dhw->nhw", head.weight, whole) + head.bias[:, None, None]).max(0).indices
    assert torch.equal(predict(embedding, head, size), expected)


@pytest.mark.parametrize("cells", [(6, 8), (1, 8), (6, 1), (1, 1)])
@pytest.mark.parametrize("size", [(24, 33), (5, 7), (4, 40)])
@pytest.mark.parametrize("outputs", [40, 600])
def test_leaving_out_what_can_not_win_changes_nothing(cells, size, outputs):
    generator = torch.Generator().manual_seed(outputs)
    embedding = torch.randn(5, *cells, dtype=torch.float64, generator=generator)
    weight = torch.randn(outputs, 5, dtype=torch.float64, generator=generator)
    head = AffineHead(weight, torch.randn(outputs, dtype=torch.float64, generator=generator))
    scores = torch.einsum("nd,dhw->nhw", weight, embedding) + head.bias[:, None, None]
    whole = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    assert torch.equal(predict(embedding, head, size), whole.max(0).indices)


def test_a_refined_head_is_the_crf_on_the_interpolated_scores():
    generator = torch.Generator().manual_seed(0)
    embedding, weight = torch.randn(5, 6, 8, generator=generator), torch.randn(3, 5, generator=generator)
    image = (torch.rand(24, 32, 3, generator=generator) * 255).byte().numpy()
    config = CRFConfig(iterations=2)
    head = AffineHead(weight, torch.tensor([0.5, 0.0, -0.5]))
    whole = F.interpolate(embedding[None], (24, 32), mode="bilinear", align_corners=False)[0]
    scores = torch.einsum("nd,dhw->nhw", weight, whole) + head.bias[:, None, None]
    found = predict_refined(embedding, RefinedHead(head, 0.5, config), image)
    assert torch.equal(found, refine(torch.softmax(2 * scores, 0), image, config).argmax(0))
    without = RefinedHead(head, 0.5, CRFConfig(smooth_weight=0, appearance_weight=0))
    assert torch.equal(predict_refined(embedding, without, image), predict(embedding, head, (24, 32)))


def test_more_outputs_than_a_crf_takes():
    with pytest.raises(ConfigError, match="prototypes, not 513"):
        RefinedHead(AffineHead(torch.zeros(513, 4), torch.zeros(513)), 0.1, CRFConfig())


@pytest.fixture(name="embedder")
def _embedder():
    torch.manual_seed(0)
    return Embedder(EmbedderConfig(output_stride=32, dim=8, resolution=64)).eval()


def random_heads(dim):
    generator = torch.Generator().manual_seed(0)
    return [AffineHead(torch.randn(n, dim, generator=generator), torch.zeros(n)) for n in (5, 40)]


def test_what_is_extracted_together_is_counted_the_same(labelled, embedder):
    data = open_labelled(labelled, "val")
    plain = positioned(embedder_extractor(embedder), 0.5)
    together = []

    def extract(images):
        together.append(len(images))
        return plain.batched.extract(images)

    # Of a GPU it has the name only.
    batched = replace(plain, batched=Batched(plain.batched.prepare, extract, torch.device("cuda")))
    alone = replace(plain, batched=None)
    heads = random_heads(12)
    results = [count(extractor, data, heads) for extractor in (alone, plain, batched)]
    for tables, tally in results[1:]:
        assert vars(tally).keys() == vars(results[0][1]).keys()
        assert (tally.images, tally.pixels, tally.void) == (4, results[0][1].pixels, results[0][1].void)
        for table, expected in zip(tables, results[0][0], strict=True):
            assert np.abs(table - expected).sum() <= (0 if tables is results[1][0] else 4)
    assert together == [4]
    drawn = [sample(extractor, data, 50, 60) for extractor in (alone, plain, batched)]
    for one in drawn[1:]:
        torch.testing.assert_close(one.cells, drawn[0].cells, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.pixels, drawn[0].pixels, rtol=0, atol=1e-5)
        assert torch.equal(one.labels, drawn[0].labels)


def test_values_that_are_not_finite_are_found_in_a_batch_too(labelled):
    def extract(images):
        values = torch.ones(len(images), 3, 4, 5)
        values[1] = torch.nan
        return values

    batched = Batched(lambda image: image, extract, torch.device("cuda"))
    extractor = Extractor("broken", lambda image: extract([image])[0], batched=batched)
    with pytest.raises(RunError, match="not finite for scene7"):
        count(extractor, open_labelled(labelled, "val"), random_heads(3)[:1])


def test_counting_by_a_table_on_the_device_is_counting():
    generator = np.random.default_rng(0)
    label = generator.choice([0, 1, 2, 255], (30, 40)).astype(np.uint8)
    output = torch.from_numpy(generator.integers(0, 7, (30, 40)))
    counter = _Counter(3, 7)
    for _ in range(2):
        counter._add_there(label, output)
    np.testing.assert_array_equal(counter.counts(), 2 * cross_counts(label, output.numpy(), 3, 7)[0].T)
    counter._add_there(np.full((30, 40), 4, np.uint8), output)
    with pytest.raises(LabelError, match=r"label 4 is outside of the classes 0\.\.2"):
        counter.counts()


@pytest.mark.gpu
def test_a_gpu_counts_what_a_cpu_counts(labelled, embedder):
    data, heads = open_labelled(labelled, "val"), random_heads(8)
    expected, tally = count(embedder_extractor(embedder), data, heads)
    drawn = sample(embedder_extractor(embedder), data, 50, 60)
    embedder = embedder.to("cuda")
    found, there = count(embedder_extractor(embedder), data, heads)
    assert there.pixels == tally.pixels
    for table, other in zip(found, expected, strict=True):
        assert np.abs(table - other).sum() < 0.02 * tally.pixels  # TF32 rounds the convolutions' factors
    drawn_there = sample(embedder_extractor(embedder), data, 50, 60)
    assert drawn_there.cells.is_cuda
    torch.testing.assert_close(drawn_there.cells.cpu(), drawn.cells, rtol=0, atol=1e-2)
    torch.testing.assert_close(drawn_there.pixels, drawn.pixels, rtol=0, atol=1e-2)
