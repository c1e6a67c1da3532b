"""What new clusters are called: what most of their pixels were."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from selfseg.collection.clusters import Clusters
from selfseg.studio.carrying.votes import LEFT_OUT, UNDECIDED, choose, leaf_labels, missed
from selfseg.studio.decisions import Split

STRIPES = F.one_hot(torch.arange(4)).T.float()[:, None].expand(4, 4, 4)  # (D, h, w): a unit vector for each column


def stripes(found: np.ndarray) -> list[str]:
    return [found[0, 4 + 8 * i] for i in range(4)]


def test_places_have_the_name_of_their_cluster_or_part() -> None:
    centroids = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    clusters = Clusters(F.normalize(centroids, dim=1), (0.5, 0.5), ((), ()), {})
    labels = {"2/0": "a", "2/1": "b"}
    assert stripes(leaf_labels(STRIPES, clusters, {}, labels)) == ["a", "a", "b", "b"]
    split = {"2/1": Split(((0, 0, 1, 0), (0, 0, 0, 1)))}
    labels = {"2/0": LEFT_OUT, "2/1.1": "c"}
    assert stripes(leaf_labels(STRIPES, clusters, split, labels)) == [LEFT_OUT, LEFT_OUT, UNDECIDED, "c"]
    deeper = {
        "2/0": Split(((1, 1, 0, 0), (-1, -1, 0, 0))),
        "2/0.0": Split(((0.5, 0, 0, 0), (0, 9, 0, 0))),
    }
    labels = {"2/0.0.0": "x", "2/0.0.1": "y", "2/0.1": "z", "2/1": "b"}
    assert stripes(leaf_labels(STRIPES, clusters, deeper, labels)) == ["x", "y", "b", "b"]


def test_parts_are_found_where_the_place_has_a_say_too() -> None:
    from selfseg.collection.clusters import add_position

    middle = add_position(STRIPES, 0.5)[:, 2, [0, 3]].T
    clusters = Clusters(F.normalize(middle, dim=1), (0.5, 0.5), ((), ()), {"position": 0.5})
    split = {"2/1": Split(((0, 0, 1, 0), (0, 0, 0, 1)))}  # of the embedding alone
    found = stripes(leaf_labels(STRIPES, clusters, split, {"2/0": "a", "2/1.0": "b", "2/1.1": "c"}))
    assert (found[0], found[3]) == ("a", "c")


def test_the_majority_decides() -> None:
    votes = {
        0: Counter({"road": 60, "sky": 40}),
        1: Counter({"road": 45, "sky": 40, UNDECIDED: 15}),
        2: Counter(),
        3: Counter({UNDECIDED: 100}),
        4: Counter({LEFT_OUT: 51, "road": 49}),
    }
    choices = choose(votes)
    assert [(one.cluster, one.label, one.certainty, one.share) for one in choices] == [
        (0, "road", 0.6, 0.25),
        (1, "road", 0.45, 0.25),
        (3, UNDECIDED, 1.0, 0.25),
        (4, LEFT_OUT, 0.51, 0.25),
    ]
    assert choices[1].second == "sky"


def test_a_class_that_got_lost_in_another_is_missed() -> None:
    votes = {
        0: Counter({"road": 90, "pole": 10}),
        1: Counter({"sky": 50, "pole": 5}),
        2: Counter({"pole": 4, UNDECIDED: 9}),
    }
    assert missed(votes, {0: "road", 1: "sky", 2: "pole"}) == [("pole", 4 / 19, "road")]
    assert missed(votes, {0: "road", 1: "sky"})[0][:2] == ("pole", 0.0)
