from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfseg.data.regions import Grid, ObjectMasks
from selfseg.data.views.plans import plans
from selfseg.errors import ConfigError, RunError
from selfseg.storage.hashes import run_hash
from selfseg.training.recipe import (
    OptimizerConfig,
    Recipe,
    change_each,
    differences,
    read_recipe,
    recipe_hash,
    recipes,
    unsettled,
    write_recipe,
)

ALL = recipes()


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_recipe_survives_its_yaml(tmp_path: Path, name: str) -> None:
    recipe = ALL[name](Path("images"), Path("run"))
    assert recipe.name == name
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_recipe_tells_what_to_expect(name: str) -> None:
    text = " ".join((ALL[name].__doc__ or "").split())
    assert all(word in text for word in ("Paper:", "Ours:", "Command:", f"selfseg train {name} "))


def test_another_region_source_survives(tmp_path: Path) -> None:
    recipe = ALL["vice_small"](Path("images"), Path("run"))
    recipe = replace(recipe, method=replace(recipe.method, views=replace(recipe.method.views, regions=Grid(12))))
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml").method.views.regions == Grid(12)


@pytest.mark.parametrize("plan", plans().values(), ids=plans())
def test_every_view_plan_survives(tmp_path: Path, plan: type[Any]) -> None:
    recipe = Recipe(Path("images"), Path("run"), method=plan(size=64, flip_probability=0.25), steps=1)
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stepps",), 3, "unknown entry stepps"),
        (("batch_size",), "many", "recipe.batch_size: 'many' should be int"),
        (("method", "kind"), "Nonsense", "no kind 'Nonsense'"),
        (("method", "embedder", "decoder"), "unet", "recipe.method.embedder.decoder: 'unet' is not one of"),
        (("method", "views", "zoom"), [1.0], "has 1 entries instead of 2"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, path: tuple[str, ...], value: object, message: str) -> None:
    write_recipe(ALL["vice_small"](Path("images"), Path("run")), tmp_path / "recipe.yaml")
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("- 1\n")
    with pytest.raises(RunError, match="not a recipe"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(RunError, match="no readable recipe"):
        read_recipe(tmp_path / "absent.yaml")


def test_only_what_is_learned_makes_a_difference() -> None:
    recipe = ALL["vice_small"](Path("images"), Path("run"))
    same = replace(recipe, out=Path("elsewhere"), workers=7, log_every=3)
    other = replace(recipe, method=replace(recipe.method, temperature=0.2))
    assert differences(recipe, same) == []
    assert recipe_hash(recipe) == recipe_hash(same)
    assert differences(recipe, other) == ["method.temperature: 0.1 → 0.2"]
    assert recipe_hash(recipe) != recipe_hash(other)


@pytest.mark.parametrize("name", ALL)
def test_results_carry_the_hash_that_checkpoints_do(name: str, tmp_path: Path) -> None:
    recipe = ALL[name](Path("images"), Path("run"))
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert run_hash(tmp_path) == recipe_hash(recipe)


def test_masks_may_be_moved_as_images_may() -> None:
    here, there = (ALL["maskcontrast_small"](Path("images"), Path("run"), masks=Path(name)) for name in "ab")
    assert here != there
    assert recipe_hash(here) == recipe_hash(there)
    assert differences(here, there) == []
    settled = change_each(there, ObjectMasks, lambda masks: replace(masks, content="index 12"))
    assert recipe_hash(settled) != recipe_hash(there)
    assert unsettled(settled) == there
    views = replace(there.method.views, min_share=0.3)
    changed = replace(there, method=replace(there.method, views=views))
    assert differences(here, changed) == ["method.views.min_share: 0.1 → 0.3"]


def test_steps_and_epochs_exclude_each_other() -> None:
    recipe = ALL["vice_small"](Path("images"), Path("run"))
    with pytest.raises(ConfigError, match="either steps or epochs"):
        replace(recipe, epochs=3.0)
    assert replace(recipe, steps=None, epochs=2.0, batch_size=8).total_steps(20) == 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be above 0, not 0"),
        ("workers", -1, "workers can't be negative: -1"),
        ("seed", -1, "seed can't be negative: -1"),
    ],
)
def test_settings_that_cannot_work_say_why(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(ALL["vice_small"](Path("images"), Path("run")), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_lr", 0.0),
        ("reference_batch", 0),
        ("momentum", 1.0),
        ("warmup", 1.0),
        ("clip", 0.0),
        ("backbone_lr", 0.0),
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
    ],
)
def test_optimisers_that_cannot_work_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"optimizer\.{name} must .*, not {value}"):
        OptimizerConfig(**{name: value})


def test_a_backbone_without_a_learning_rate_is_a_frozen_one() -> None:
    with pytest.raises(ConfigError, match=r"--method\.embedder\.frozen"):
        OptimizerConfig(backbone_lr=0.0)


@pytest.mark.parametrize(("first", "last"), [(0.0, 0.4), (0.04, 0.0)])
def test_a_weight_decay_that_changes_begins_and_ends_above_0(first: float, last: float) -> None:
    with pytest.raises(ConfigError, match=f"must be above 0 where it changes, not {last} and {first}"):
        OptimizerConfig(weight_decay=first, final_weight_decay=last)


def test_gradients_are_shortened_in_one_way() -> None:
    with pytest.raises(ConfigError, match=r"clip_each must be above 0 or None, .*, not 0.0 and None"):
        OptimizerConfig(clip_each=0.0)
    with pytest.raises(ConfigError, match=r"clip_each must be above 0 or None, and clip None beside it, not 1.0 and 2"):
        OptimizerConfig(clip=2.0, clip_each=1.0)


def test_build_method_refuses_unknown_settings() -> None:
    recipe: Recipe[int] = Recipe(images=Path("i"), out=Path("o"), method=3, steps=1)
    with pytest.raises(ConfigError, match="no method takes a int"):
        recipe.build_method()


LEFT_OUT: list[tuple[str, tuple[str, ...], str, object]] = [
    ("vice_coco_lowres", ("method", "views"), "outside", "clip"),
    ("vice_coco_lowres", ("method",), "queue_start", 0.0),
    ("maskcontrast_voc", ("method",), "saliency_loss", "balanced"),
    ("maskcontrast_voc", ("method", "views"), "same_view", False),
    ("maskcontrast_voc", ("method", "embedder"), "frozen_stages", 0),
    ("picie_coco27", ("method",), "weighting", "none"),
    ("slotcon_coco", ("method", "views"), "same_crop", False),
]


@pytest.mark.parametrize(("name", "path", "entry", "old"), LEFT_OUT)
def test_a_recipe_from_before_a_choice_is_what_it_was(
    tmp_path: Path, name: str, path: tuple[str, ...], entry: str, old: object
) -> None:
    write_recipe(ALL[name](Path("images"), Path("run")), tmp_path / "recipe.yaml")
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    place = content
    for key in path:
        place = place[key]
    del place[entry]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    found: Any = read_recipe(tmp_path / "recipe.yaml")
    for key in path:
        found = getattr(found, key)
    assert getattr(found, entry) == old


@pytest.mark.parametrize("size", ["small", "scratch"])
def test_our_own_sizes_keep_what_they_compute(size: str) -> None:
    made = {
        name: ALL[f"{name}_{size}"](Path("images"), Path("run")).method for name in ("vice", "maskcontrast", "picie")
    }
    assert (made["vice"].views.outside, made["vice"].queue_start) == ("clip", 0.0)
    views = made["maskcontrast"].views
    assert (made["maskcontrast"].saliency_loss, views.jitter) == ("balanced", (0.4, 0.4, 0.4, 0.1))
    assert made["picie"].weighting == "none"


def test_the_papers_recipes_have_the_papers_settings() -> None:
    made = {name: make(Path("images"), Path("run")) for name, make in ALL.items()}
    began = {name for name, recipe in made.items() if recipe.init == "imagenet:tv_in1k"}
    of_vice = {f"vice_{data}_{kind}" for data in ("coco", "cityscapes") for kind in ("lowres", "lowres_k27", "highres")}
    of_picie = {"picie_coco27", "picie_h_coco27", "picie_cityscapes27"}
    assert began >= of_vice | of_picie | {"maskcontrast_voc_reference_supervised"}
    for name in of_vice:
        method = made[name].method
        assert method.views.outside == "fill"
        assert method.queue_start == method.prototypes_frozen > 0
        assert method.prototypes == (27 if name.endswith("k27") else 128)
    short = made["vice_cityscapes_lowres"]
    assert short.method.prototypes_frozen == pytest.approx(0.56, abs=0.005)
    for name in of_picie:
        assert made[name].batch_size == 128
        assert made[name].method.weighting == "frequency"
        assert made[name].optimizer.rate(0.5, 128) == pytest.approx(1e-3 if "cityscapes" in name else 1e-4)
    paper, reference = made["maskcontrast_voc"], made["maskcontrast_voc_reference"]
    supervised = made["maskcontrast_voc_reference_supervised"]
    for recipe, batch, queue, stages in ((paper, 64, 128, 0), (reference, 128, 256, 0), (supervised, 64, 128, 2)):
        assert (recipe.batch_size, recipe.method.queue, recipe.method.embedder.frozen_stages) == (batch, queue, stages)
        assert recipe.optimizer.rate(0.0, batch) == pytest.approx(0.004)
        assert (recipe.method.saliency_loss == "plain") == (recipe is paper)
        assert (recipe.method.views.jitter == (0.8, 0.8, 0.8, 0.2)) == (recipe is paper)


def test_iics_recipes_for_the_tables():
    made = {name: ALL[name](Path("images"), Path("run")) for name in ("iic_coco27", "iic_cityscapes27", "iic_voc")}
    assert {name: (r.method.clusters, r.method.overclusters) for name, r in made.items()} == {
        "iic_coco27": (27, 81),
        "iic_cityscapes27": (27, 81),
        "iic_voc": (21, 63),
    }
    rates = {
        recipe.optimizer.base_lr * recipe.batch_size / recipe.optimizer.reference_batch for recipe in made.values()
    }
    assert rates == {1e-4}
    assert [recipe.init for recipe in made.values()] == ["imagenet:tv_in1k", "imagenet:tv_in1k", "random"]
    assert made["iic_voc"].epochs == 60
