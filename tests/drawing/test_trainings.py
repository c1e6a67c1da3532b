"""Means over trainings: which runs are trainings of one recipe, and what is told of them."""

import pytest

from selfseg.drawing.trainings import columns_of, over_trainings
from selfseg.evaluation.measure.trainings import as_training, trainings_markdown
from selfseg.storage.hashes import training_of
from some_result import some_result


def result(what, miou, recipe="a", seed=0, of="embedder", protocol="linear"):
    options = as_training({"recipe": recipe, "seed": seed}, of) if recipe else {}
    return some_result(what, miou, miou + 0.1, protocol=protocol, options=options)


def test_a_mean_is_over_the_seeds_of_one_recipe():
    results = [
        result("vice0", 0.3),
        result("slots", 0.9, recipe="b"),
        result("vice1", 0.4, seed=1),
        result("colour", 0.2, recipe=""),
        result("vice2", 0.5, seed=2),
    ]
    (several,) = over_trainings(results)
    assert several.rows == ("vice0", "vice1", "vice2")
    (miou, accuracy) = several.cells["linear"]
    assert miou == pytest.approx((0.4, 0.1))  # of a sample: n - 1
    assert accuracy == pytest.approx((0.5, 0.1))
    assert several.cell("linear") == "0.400 ± 0.100 / 0.500 ± 0.100"
    lines = trainings_markdown([several]).splitlines()
    assert "| 3 trainings: vice0, vice1, vice2 | 0.400 ± 0.100 / 0.500 ± 0.100 |" in lines


def test_a_copy_of_a_run_is_no_training_of_its_own():
    assert over_trainings([result("run", 0.3), result("copy", 0.3)]) == []
    (several,) = over_trainings([result("run", 0.3), result("copy", 0.7), result("other", 0.4, seed=1)])
    assert several.rows == ("run", "other")
    assert trainings_markdown([]) == ""


def test_each_thing_that_is_measured_of_a_run_has_a_mean_of_its_own():
    results = [
        result(f"vice{seed}{more}", 0.1 * seed + bonus, seed=seed, of=f"embedder{more}")
        for seed in (1, 2)
        for more, bonus in (("", 0.0), (" + position", 0.5))
    ]
    assert [each.rows for each in over_trainings(results)] == [
        ("vice1", "vice2"),
        ("vice1 + position", "vice2 + position"),
    ]


def test_a_column_that_a_training_lacks_has_no_mean():
    results = [result("a", 0.3), result("b", 0.4, seed=1), result("a", 0.5, protocol="prototypes")]
    several = over_trainings(results)
    assert columns_of(several) == ["linear"]
    assert several[0].cell("prototypes") == ""


@pytest.mark.parametrize("training", [None, 3, {}, {"recipe": "a"}, {"recipe": ["a"], "seed": 0, "of": "embedder"}])
def test_results_that_do_not_tell_their_training_have_no_mean(training):
    other = result("b", 0.4, seed=1)
    assert over_trainings([result("a", 0.3, recipe=""), other]) == []
    odd = some_result("a", 0.3, options={"training": training})
    assert over_trainings([odd, other]) == []


def test_trainings_differ_in_their_seed_alone(tmp_path):
    def run(name, text, sizes="[1, 2]"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(text)
        (tmp_path / name / "image_bytes.json").write_text(sizes)
        return training_of(tmp_path / name)

    first = run("first", "steps: 3\nseed: 0\nout: first\n")
    assert first["seed"] == 0
    assert run("second", "steps: 3\nseed: 1\nout: second\n") == {"recipe": first["recipe"], "seed": 1}
    assert run("longer", "steps: 4\nseed: 1\n")["recipe"] != first["recipe"]
    assert run("other images", "steps: 3\nseed: 1\n", "[1, 3]")["recipe"] != first["recipe"]
    assert run("no seed", "steps: 3\n") == {} == training_of(tmp_path)
