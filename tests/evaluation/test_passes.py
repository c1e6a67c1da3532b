import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.evaluation.passes import AffineHead, at_pixels, predict


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
