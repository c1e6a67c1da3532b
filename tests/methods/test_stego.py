"""STEGO beyond the contract: its equations written literally, which partners are chosen, and from what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.stego import STEGO, STEGOConfig
from selfseg.models.decoders import StegoHead
from selfseg.models.embedder import EmbedderConfig
from selfseg.types import Batch, View

CONFIG = tiny.stego(Path("images"), Path("run")).method
C, D, P = 96, 8, 16  # of the tiny run


def make(**changes: Any) -> STEGO:
    torch.manual_seed(0)
    return STEGO(replace(CONFIG, **changes)).double().train()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


def literal(config: STEGOConfig, features: Tensor, codes: Tensor, paired: list[bool]) -> Tensor:
    """Eq. 1, 2, 4 and 5, pair of places by pair of places; the sum of eq. 4 is a mean, over images too."""
    total = torch.tensor(0.0, dtype=torch.float64)
    for partner, (shift, weight) in enumerate(
        [
            (config.shift_self, config.weight_self),
            (config.shift_neighbour, config.weight_neighbour),
            (config.shift_random, config.weight_random),
        ]
    ):
        images = [i for i in range(len(paired)) if partner == 0 or paired[i]]
        places = range(features.shape[2])
        f = {
            (i, hw, ij): cosine(features[0, i, hw], features[partner, i, ij])
            for i in images
            for hw in places
            for ij in places
        }
        kept = sum(f.values()) / len(f) if config.keep_mean else 0.0
        terms = []
        for i in images:
            for hw in places:
                centre = sum(f[i, hw, ij] for ij in places) / len(places)
                for ij in places:
                    s = cosine(codes[0, i, hw], codes[partner, i, ij])
                    if s > 0:
                        terms.append(-(f[i, hw, ij] - centre + kept - shift) * s)
        total = total + weight * sum(terms) / (len(images) * len(places) ** 2)
    return total


@pytest.mark.parametrize("keep_mean", [False, True])
@pytest.mark.parametrize("paired", [[True, True], [True, False]])
def test_the_loss_and_its_gradient_equal_the_equations_written_literally(keep_mean: bool, paired: list[bool]) -> None:
    method = make(
        keep_mean=keep_mean, shift_self=0.1, shift_neighbour=-0.05, shift_random=0.2, weight_self=0.7, weight_random=0.3
    )
    features, codes = draw(3, 2, 5, 6) + 0.3, draw(3, 2, 5, D, seed=1).requires_grad_()
    features[0, :, 1] = features[0, :, 0]
    output = method.compare(features, codes, torch.tensor(paired))
    ours = output.loss - output.logs["loss_prototypes"]
    theirs = literal(method.config, features, codes, paired)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, codes)[0] for loss in (output.loss, theirs)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
    assert gradients[0].abs().max() > 1e-3


def test_places_that_correspond_come_nearer_and_others_part() -> None:
    method = make(weight_neighbour=0.0, weight_random=0.0)
    features = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]].expand(3, 1, 4, 2)
    codes = (draw(3, 1, 4, D) + 2).requires_grad_()  # all near each other
    optimizer = torch.optim.Adam([codes], lr=0.2)
    for _ in range(80):
        optimizer.zero_grad()
        method.compare(features, codes, torch.tensor([True])).loss.backward()
        optimizer.step()
    vectors = F.normalize(codes[0, 0].detach(), dim=1)
    similarity = vectors @ vectors.T
    assert min(similarity[0, 1], similarity[2, 3]) > 0.99
    assert similarity[:2, 2:].max() < 0.01


def chosen_literally(
    config: STEGOConfig, wholes: Tensor, owners: list[int], stored: list[tuple[Tensor, int]], picks: Tensor
) -> list[list[int]]:
    rows = [*zip(wholes, owners, strict=True), *stored]
    result = []
    for vector, owner, (first, second) in zip(wholes, owners, picks.tolist(), strict=True):
        seen = {owner}
        others = []
        for place, (_, who) in enumerate(rows):
            if who not in seen:
                seen.add(who)
                others.append(place)
        near = sorted(others, key=lambda place: -float(vector @ rows[place][0]))[: config.neighbours]
        if others:
            result.append([near[int(first * len(near))], others[int(second * len(others))]])
        else:
            result.append([-1, -1])
    return result


@pytest.mark.parametrize("seed", range(3))
def test_partners_are_drawn_from_the_nearest_and_from_all_of_the_other_images(seed: int) -> None:
    method = make(queue=12, neighbours=3)
    vectors = F.normalize(draw(16, C, seed=seed), dim=1)
    owners = [3, 1, 3, 7]  # one image is twice in the step, and the queue has older views of some
    stored = [2, 3, 9, 2, 4, 1, 8]
    method.wholes.push(vectors[4:11])
    method.owners.push(torch.tensor(stored)[:, None])
    method.points.push(draw(7, P * C))
    picks = torch.rand(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chosen, nearness = method.choose(vectors[:4], torch.tensor(owners), picks)
    expected = chosen_literally(
        method.config, vectors[:4], owners, list(zip(vectors[4:11], stored, strict=True)), picks
    )
    assert chosen.tolist() == expected
    cosines = [float(vectors[i] @ vectors[place[0]]) for i, place in enumerate(expected)]
    assert nearness.item() == pytest.approx(sum(cosines) / 4)


def test_a_partner_has_the_features_that_were_kept_of_it() -> None:
    method = make(queue=4)
    new, old = draw(2, P, C), draw(3, P, C, seed=1)
    method.points.push(old.flatten(1))
    for chosen, expected in {0: new[0], 1: new[1], 2: old[0], 4: old[2]}.items():
        assert torch.equal(method._fetch(torch.tensor([chosen]), new)[0], expected)


def batch(*index: int, seed: int = 0) -> Batch:
    image = torch.rand(len(index), 3, 96, 96, generator=torch.Generator().manual_seed(seed)).double()
    affine = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).double().expand(len(index), 2, 3)
    return Batch((View(image, affine, torch.zeros(len(index), 0, 0)),), torch.tensor(index))


@pytest.mark.parametrize("index", [(4,), (4, 4)])
def test_an_image_without_another_has_the_first_term_alone(index: tuple[int, ...]) -> None:
    output = make()(batch(*index), 0.5)
    logs = dict(output.logs)
    assert logs["loss_neighbour"] == logs["loss_random"] == logs["nearness"] == 0
    torch.testing.assert_close(output.loss.detach(), logs["loss_self"] + logs["loss_prototypes"])


def test_the_backbone_sees_an_image_once_a_step() -> None:
    method, seen = make(), []
    method.embedder.backbone.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    method(batch(0, 1), 0.1)
    method(batch(2, 3, 4), 0.2)
    assert seen == [2, 3]


def test_the_queue_keeps_what_the_step_saw() -> None:
    method = make()
    method(batch(7, 8), 0.1)
    method(batch(9, 7, 5), 0.2)
    assert method.owners.newest[:, 0].tolist() == [9, 7, 5, 7, 8]
    points = method.points.newest.view(5, P, C)
    whole = method.embedder.features(batch(9, 7, 5).views[0].image).flatten(2)  # (3, C, cells)
    for image in range(3):
        distances = torch.cdist(points[image], whole[image].T)
        assert distances.min(1).values.max() < 1e-9  # each place is a cell of its image
    torch.testing.assert_close(method.wholes.newest[:3], F.normalize(whole.mean(2), dim=1))


def test_what_is_drawn_depends_on_the_image_and_the_progress_alone() -> None:
    method = make()
    one, other = batch(3, 6), batch(6, 3)
    other = Batch((replace(other.views[0], image=one.views[0].image.flip(0)),), other.index)
    points, _, picks, _ = method._look(one, 0.25)
    swapped, _, swapped_picks, _ = method._look(other, 0.25)
    torch.testing.assert_close(points, swapped.flip(0))
    assert torch.equal(picks, swapped_picks.flip(0))
    later = method._look(one, 0.25 + 1e-6)
    assert not torch.equal(later[2], picks)
    assert not torch.equal(later[0], points)


def test_prototypes_find_separate_groups_and_leave_the_codes_alone() -> None:
    method = make(prototypes=3, weight_self=0.0, weight_neighbour=0.0, weight_random=0.0)
    groups = torch.eye(D, dtype=torch.float64)[:3]
    codes = (groups[torch.arange(P) % 3] * 5 + 0.01 * draw(P, D)).expand(3, 1, P, D).clone().requires_grad_()
    with torch.no_grad():
        method.prototypes.copy_(F.normalize(groups + 0.2 * draw(3, D, seed=2), dim=1))
    optimizer = torch.optim.Adam([method.prototypes], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        output = method.compare(draw(3, 1, P, 4), codes, torch.tensor([True]))
        output.loss.backward()
        optimizer.step()
        method.after_step(0.5)
    torch.testing.assert_close(method.concept_vectors(), groups, atol=0.05, rtol=0)
    assert output.logs["loss_prototypes"] < -0.99
    assert output.logs["prototype_entropy"] > 0.99
    assert codes.grad is not None
    assert not codes.grad.any()


def test_the_head_is_a_linear_map_and_a_network_added_to_it() -> None:
    torch.manual_seed(0)
    head = StegoHead([4, 6], 3).double()
    stage = draw(2, 6, 5, 4)
    first, last = head.network[0], head.network[2]
    for y, x in ((0, 0), (4, 3)):
        vector = stage[1, :, y, x]
        hidden = (first.weight[:, :, 0, 0] @ vector + first.bias).clamp(min=0)
        expected = head.linear.weight[:, :, 0, 0] @ vector + head.linear.bias
        expected = expected + last.weight[:, :, 0, 0] @ hidden + last.bias
        torch.testing.assert_close(head([draw(1, 4, 9, 9), stage])[1, :, y, x], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": 0}, "grid must be at least 1, not 0"),
        ({"neighbours": 0}, "neighbours must be at least 1, not 0"),
        ({"queue": 0}, "queue must be at least 1, not 0"),
        ({"weight_random": -1.0}, r"weight_random can't be negative: -1\.0"),
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"views": RandomCrops(views=2)}, "views=1 and small_views=0, not 2 and 0"),
        ({"views": RandomCrops(views=1, small_views=1)}, "views=1 and small_views=0, not 1 and 1"),
        ({"embedder": EmbedderConfig(decoder="stego")}, "frozen must be True, not False"),
        ({"embedder": EmbedderConfig(decoder="fpn", frozen=True)}, "one of stego, pyramid, linear, none, not 'fpn'"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STEGOConfig(**changes)
