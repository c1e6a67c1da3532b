"""Groups and beliefs follow the log, whoever wrote to it and however a decision ended."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import selfseg
from selfseg.errors import ConfigError, RunError
from selfseg.storage.files import sole_use
from selfseg.studio.beliefs import NONE
from selfseg.studio.decisions.log import DecisionLog
from selfseg.studio.server.contract import AnotherNow
from studio.test_studio import opened, settled


def test_after_clustering_again_names_of_the_old_clusters_rest_at_once(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio:
        for number in range(3):
            studio.name(f"6/{number}", "old")
    shutil.rmtree(run / "clusters")
    selfseg.cluster(run, scenes, k=(3, 6), points=300, seed=7, progress=False, max_bad=0.5, propose=False)
    with opened(run, scenes) as studio:
        settled(studio)
        assert studio.state().classes == []
        assert studio._known == ()
        assert all((studio.prediction(image).classes == NONE).all() for image in range(5))
        studio.click(0, [(0.5, 0.5)], 40, "new")
        assert [one.name for one in settled(studio).state().classes] == ["new"]
        values = np.concatenate([studio.prediction(image).classes for image in range(5)])
        assert set(values.tolist()) <= {0, NONE}


def test_a_refused_decision_still_shows_what_another_process_decided(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as here:
        with opened(run, scenes) as there:
            there.name("6/0", "ground")
            there.name("6/1", "sky")
        with pytest.raises(ConfigError, match="no class 'nothing'"):
            here.rename("nothing", "something")
        state = settled(here).state()
        assert [one.name for one in state.classes] == ["ground", "sky"]
        assert {0, 1} <= set(np.concatenate([here.prediction(i).classes for i in range(5)]).tolist())


def test_regions_found_anew_for_other_images_leave_an_open_studio_alone(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as first:
        before = [first.regions(image) for image in range(5)]
        with opened(run, sorted(scenes.glob("*.png"))[:2]) as second:
            assert second.state().images == 2
            assert second.session != first.session
        for image, (superpixels, merges) in enumerate(before):
            again = first.regions(image)
            assert (again[0] == superpixels).all()
            assert (again[1] == merges).all()


def test_shares_follow_a_click_where_there_is_one_image(run: Path, scenes: Path) -> None:
    with opened(run, [scenes / "scene 0.png"]) as studio:
        studio.click(0, [(0.5, 0.2)], 40, "a")
        settled(studio)
        for _ in range(100):
            if studio.state().classes[0].regions:
                break
            threading.Event().wait(0.02)
        (found,) = studio.state().classes
        assert found.regions > 0
        assert found.share > 0


def test_a_class_has_no_share_until_it_is_counted(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio, studio._lock:  # the thread that counts waits for the lock
        studio.name("6/0", "ground")
        (found,) = studio.state().classes
        assert (found.regions, found.share) == (None, None)


def test_the_number_of_clusters_that_went_away_is_not_grouped_anew_each_time(run: Path, scenes: Path) -> None:
    with opened(run, scenes, k=6) as studio:
        studio.name("6/0", "a")
    for file in (run / "clusters").iterdir():
        if "6" in file.name:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    with opened(run, scenes) as studio:
        assert studio.state().k_now == 3
        grouping = studio._groups()
        studio.name("3/0", "b")
        assert studio._groups() is grouping


def test_a_number_of_clusters_chosen_after_an_audit_makes_it_old(run: Path, scenes: Path) -> None:
    log = DecisionLog.open(run / "studio")
    log.append("k", k=6)
    log.append("audit_start", count=1, seed=0, weigh="images")
    log.append("audit", image={"name": "a", "hash": "0" * 32}, point=[0.5, 0.5], predicted="", verdict="", n=0)
    for kind, fields, since in (
        ("clusters", {"k": 6, "fingerprint": "0" * 16}, 0),
        ("k", {"k": 6}, 0),
        ("k", {"k": 3}, 1),
        ("name", {"cluster": "3/0", "name": "a"}, 2),
    ):
        log.append(kind, **fields)
        assert log.state().audits[-1].decisions_since == since


def test_a_verdict_is_about_the_audit_that_was_looked_at(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio:
        studio.name("6/0", "a")
        studio.audit_start(5, 1)
        first = studio.audit()
        assert first is not None
        studio.audit_start(5, 2)
        with pytest.raises(AnotherNow, match="another audit"):
            studio.audit_answer(0, "a", first.round)
        now = studio.audit()
        assert now is not None
        assert now.answered == 0
        studio.audit_answer(0, "a", now.round)


def test_undo_takes_back_only_what_the_page_showed(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as here, opened(run, scenes) as there:
        here.name("6/0", "mine")
        shown = here.state().undo_of
        there.name("6/1", "theirs")
        here.undo(shown)
        assert [one.name for one in here.state().classes] == ["mine", "theirs"]
        here.undo(here.state().undo_of)
        assert [one.name for one in here.state().classes] == ["mine"]


@pytest.mark.slow
def test_a_handing_over_leaves_no_files_of_the_one_before_and_tells_its_age(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio:
        studio.name("6/0", "a")
        studio.hand_over(["palette"], model=False)
        studio._job.wait()
        version = studio.pulse().version
        studio.hand_over(["coco"], model=False)
        studio._job.wait()
        assert studio.pulse().version > version
        assert sorted(one.name for one in (run / "studio" / "handed_over").glob("*.zip")) == ["coco.zip"]
        assert studio.job().decisions_since == 0  # type: ignore[union-attr]
        studio.name("6/1", "b")
        assert studio.job().decisions_since == 1  # type: ignore[union-attr]
        with sole_use(run / "studio"):  # as another studio of the run does while it writes
            studio.hand_over(["coco"], model=False)
            studio._job.wait()
        assert "another process is at work" in str(studio.job().error)  # type: ignore[union-attr]


@pytest.mark.slow
def test_an_open_studio_never_takes_numbers_of_clusters_made_anew_for_its_own(run: Path, scenes: Path) -> None:
    """One was left open in a browser; the run was clustered again, and another studio opened."""
    with opened(run, scenes) as here:
        here.name("6/0", "old")
        before = here.session
        selfseg.cluster(run, scenes, k=(3, 6), points=300, seed=7, progress=False, max_bad=0.5, propose=False)
        here.name("6/1", "old")  # nobody has spoken of other clusters yet: the page shows those that it means
        assert here.session == before
        with opened(run, scenes) as there:
            there.name("6/2", "new")
            with pytest.raises(AnotherNow, match="clustered again meanwhile"):
                here.name("6/3", "old")
            assert here.session == there.session != before
            names = {one.id: one.name for one in here.state().clusters if one.name}
            assert names == {"6/2": "new"}
            assert np.array_equal(here._groups().members, there._groups().members)


def test_a_model_is_not_made_of_clicks_and_another_network(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio:
        studio.name("6/0", "road")
        weights = run / "embedder" / "weights.safetensors"
        there = load_file(weights)
        save_file({name: value + 1 if value.is_floating_point() else value for name, value in there.items()}, weights)
        with pytest.raises(RunError, match="trained on since the studio was opened"):
            studio.hand_over([], model=True)
