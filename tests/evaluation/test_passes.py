import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.errors import ConfigError
from selfseg.evaluation.passes import AffineHead, RefinedHead, at_pixels, predict, predict_refined
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
