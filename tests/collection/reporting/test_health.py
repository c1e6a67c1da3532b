import math

import pytest
import torch
import torch.nn.functional as F

from selfseg.collection.reporting.health import judge
from selfseg.fitting.stepping import read_log
from selfseg.ops.objectives.losses import effective_rank


def log(loss, **further):
    return [
        {"step": i, "progress": i / (len(loss) - 1), "loss": value, "loss_uniform": math.log(128), **further}
        for i, value in enumerate(loss)
    ]


def levels(verdicts):
    return {verdict.name: verdict.level for verdict in verdicts}


def test_a_falling_loss_is_fine():
    found = levels(judge(log([4.8 - i / 40 for i in range(100)], prototype_entropy=0.9, data_wait=0.1)))
    assert found == {"loss": "ok", "guessing": "ok", "prototypes": "ok", "speed": "ok"}


def test_a_loss_at_the_guess_is_loud():
    assert levels(judge(log([4.852] * 100)))["guessing"] == "warn"  # too few steps to tell
    verdicts = judge(log([4.852] * 300))
    assert levels(verdicts) == {"guessing": "bad", "loss": "warn"}
    assert verdicts[0].name == "guessing"
    assert "128" in verdicts[0].sentence
    assert verdicts[0].advice


@pytest.mark.parametrize(
    ("active", "dead", "level"), [(1.2, 0.0, "bad"), (7.0, 0.6, "warn"), (7.0, 0.1, "ok")], ids=str
)
def test_slots(active, dead, level):
    assert levels(judge(log([4.0] * 10, active_slots=active, dead_prototypes=dead)))["slots"] == level


@pytest.mark.parametrize(
    ("loss", "name"), [([3.0] * 20 + [math.nan], "finite"), ([2.0 + i / 20 for i in range(50)], "loss")]
)
def test_a_lost_run_is_bad(loss, name):
    assert levels(judge(log(loss)))[name] == "bad"


@pytest.mark.parametrize(
    ("found", "guess", "steps", "level"),
    [
        (0.013, 1 / 144, 400, "bad"),
        (0.013, 1 / 144, 40, "warn"),  # too few steps to tell
        (0.08, 1 / 144, 400, "ok"),
        (0.52, 1 / 2, 400, "bad"),  # twice the guess would be everything
        (0.6, 1 / 2, 400, "ok"),
    ],
)
def test_pixels_that_find_their_object_no_better_than_a_guess(found, guess, steps, level):
    verdicts = judge(log([4.0] * steps, found=found, found_guess=guess))
    (verdict,) = [verdict for verdict in verdicts if verdict.name == "finding"]
    assert verdict.level == level
    assert f"{found:.1%}" in verdict.sentence
    assert f"among {round(1 / guess)} " in verdict.sentence
    assert bool(verdict.advice) == (level != "ok")
    first_half = [{**line, "progress": line["progress"] / 2} for line in log([4.0] * 400, found=0.0, found_guess=guess)]
    assert levels(judge(first_half))["finding"] == "warn"


def test_finding_is_not_judged_without_its_guess():
    assert "finding" not in levels(judge(log([4.0] * 300, found=0.9)))
    assert "finding" not in levels(judge(log([4.0] * 300, found=1.0, found_guess=1.0)))


@pytest.mark.parametrize(("entropy", "level"), [(0.1, "bad"), (0.5, "warn"), (0.8, "ok")])
def test_collapsed_prototypes(entropy, level):
    assert levels(judge(log([4.0] * 10, prototype_entropy=entropy)))["prototypes"] == level


def test_collapsed_embeddings():
    torch.manual_seed(0)
    healthy = [F.normalize(torch.randn(32, 20, 20), dim=0) for _ in range(3)]
    assert levels(judge([], healthy)) == {"rank": "ok", "contrast": "ok"}
    point = torch.randn(32, 1, 1) + 1e-4 * torch.randn(32, 20, 20)
    assert levels(judge([], [point, point]))["contrast"] == "bad"
    line = torch.randn(32, 1, 1) * torch.randn(1, 20, 20)
    assert levels(judge([], [line]))["rank"] == "bad"


def test_one_cluster_that_takes_all():
    assert levels(judge([], [], {8: [0.95] + [0.05 / 7] * 7})) == {"clusters": "bad"}
    assert levels(judge([], [], {2: [0.7, 0.3]})) == {"clusters": "ok"}


def test_effective_rank_counts_directions():
    torch.manual_seed(0)
    points = torch.zeros(20_000, 16)
    points[:, :5] = torch.randn(20_000, 5)
    assert effective_rank(points).item() == pytest.approx(5, abs=0.01)
    assert effective_rank(torch.ones(10, 4)).item() == 1


def test_a_log_that_was_cut_off_is_read(tmp_path):
    assert read_log(tmp_path) == []
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_a_loss_below_zero_falls_without_a_percentage():
    def verdict(first, last):
        lines = [{"step": i, "progress": i / 99, "loss": first + (last - first) * i / 99} for i in range(100)]
        return next(v for v in judge(lines) if v.name == "loss")

    assert (verdict(-0.2, -0.9).level, verdict(-0.9, -0.2).level) == ("ok", "bad")
    assert verdict(0.1, -0.5).sentence.startswith("The loss has fallen, from 0.")
    assert "%" in verdict(2.0, 1.0).sentence
