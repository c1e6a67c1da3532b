import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.collection.proposal import FEWEST_IMAGES, TRIED, load_proposal, propose_k, save_proposal
from selfseg.errors import ConfigError
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.matching import adjusted_rand, overlaps


def kinds(count, noise, images=32, each=40):
    """Pixels of so many kinds, every image with all of them: (N, 16) and the (N,) images."""
    random = torch.Generator().manual_seed(1)
    centres = F.normalize(torch.randn(count, 16, generator=random), dim=1)
    drawn = torch.randint(0, count, (images * each,), generator=random)
    return centres[drawn] + noise * torch.randn(images * each, 16, generator=random), torch.arange(
        images * each
    ) // each


@pytest.mark.slow
@pytest.mark.parametrize("merge", [None, 24])
def test_the_number_of_kinds_that_there_are_is_proposed(merge):
    found = propose_k(*kinds(6, 0.05), merge=merge)
    assert found.k == 6
    assert found.sentence.startswith("We would begin with 6 clusters: two halves of your images agree better there (")
    assert found.agreement["6"] > 0.9 > found.agreement["4"]
    assert found.merged == merge


@pytest.mark.slow
def test_pixels_without_kinds_get_no_number():
    random = torch.Generator().manual_seed(0)
    samples = torch.randn(1280, 16, generator=random)
    found = propose_k(samples, torch.arange(1280) // 40)
    assert found.k is None
    assert found.sentence.startswith("No number of clusters stands out")
    assert set(found.agreement) <= {str(k) for k in TRIED}


@pytest.mark.slow
def test_kinds_that_only_one_half_has_are_no_agreement():
    # Every image has four kinds of its own: nothing repeats from one half to the other.
    random = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(32 * 4, 64, generator=random), dim=1)
    samples = centres.repeat_interleave(10, 0) + 0.01 * torch.randn(1280, 64, generator=random)
    found = propose_k(samples, torch.arange(1280) // 40)
    assert max(found.agreement.values()) < 0.5


def test_too_few_images_and_too_few_colours_are_said():
    samples, owners = kinds(4, 0.1, images=FEWEST_IMAGES - 1)
    assert (
        propose_k(samples, owners).sentence
        == "No number of clusters is proposed: that takes 16 images or more, and there are 15."
    )
    samples, owners = kinds(4, 0.0)
    assert propose_k(torch.ones_like(samples), owners).sentence.endswith("pixels differ too little.")


def test_a_proposal_is_of_one_embedder(tmp_path):
    assert load_proposal(tmp_path) is None
    Embedder(EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8)).save(tmp_path / "embedder")
    found = propose_k(*kinds(2, 0.1, images=3))
    save_proposal(tmp_path, found)
    assert load_proposal(tmp_path) == found
    values = json.loads((tmp_path / "clusters" / "proposal.json").read_text())
    (tmp_path / "clusters" / "proposal.json").write_text(json.dumps({**values, "embedder": "another"}))
    assert load_proposal(tmp_path) is None
    (tmp_path / "clusters" / "proposal.json").write_text("[")
    assert load_proposal(tmp_path) is None


def test_adjusted_rand_is_that_of_the_paper():
    # Of Hubert and Arabie's formula, by hand: 6 points in 2 + 2 + 2 and in 3 + 3.
    first, second = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 1])
    together, chance = 2, 3 * 6 / 15
    assert adjusted_rand(overlaps(first, second, 3)) == pytest.approx((together - chance) / ((3 + 6) / 2 - chance))
    random = np.random.default_rng(0)
    assert abs(adjusted_rand(overlaps(random.integers(0, 5, 5000), random.integers(0, 5, 5000), 5))) < 0.01
    assert adjusted_rand(np.array([[0, 4], [3, 0]])) == 1
    assert adjusted_rand(np.array([[7]])) == 1
    with pytest.raises(ConfigError, match="here are 1 points"):
        adjusted_rand(np.array([[1]]))
