import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.cli import main
from selfseg.errors import ConfigError, RunError
from selfseg.studio.beliefs import NONE
from selfseg.studio.server.contract import UNSURE, StudioLike
from selfseg.studio.studio import Studio, _why


def opened(run: Path, scenes: Path, **options: object) -> Studio:
    return Studio(run, scenes, device="cpu", progress=False, max_bad=0.5, **options)  # type: ignore[arg-type]


@pytest.fixture
def studio(run: Path, scenes: Path) -> Iterator[Studio]:
    with opened(run, scenes) as studio:
        yield studio


def settled(studio: Studio) -> Studio:
    """When all images follow the last decision."""
    for _ in range(200):
        if studio.pulse().busy is None:
            break
        time.sleep(0.01)
    return studio


def test_it_is_what_the_server_asks_for(studio: Studio) -> None:
    server: StudioLike = settled(studio)
    state = server.state()
    assert (state.images, list(state.k), state.k_now) == (5, [3, 6], 6)
    assert state.unusable == 1  # broken.jpg
    assert [one.id for one in state.clusters] == [f"6/{i}" for i in range(6)]
    assert sum(one.share for one in state.clusters) == pytest.approx(1, rel=1e-4)
    assert all(0 <= one.mixed <= 1 for one in state.clusters)
    assert (state.undoes, state.redoes, state.classes, state.busy) == ("", "", [], None)
    assert "Nothing is decided yet" in state.progress.sentence


@pytest.mark.slow
def test_names_reach_every_image_and_survive_being_closed(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio:
        studio.name("6/0", "ground")
        studio.name("6/1", "sky")
        studio.name("6/2", "ground")
        studio.leave_out("6/3", True)
        before = settled(studio).state()
        assert [(one.name, one.regions > 0) for one in before.classes] == [("ground", True), ("sky", True)]
        assert [one.name for one in before.clusters[:3]] == ["ground", "sky", "ground"]
        assert before.clusters[3].left_out
        predictions = [studio.prediction(i).classes for i in range(5)]
        assert {int(value) for one in predictions for value in one} == {0, 1, NONE}
    with opened(run, scenes) as again:
        after = settled(again).state()
        assert after.clusters == before.clusters
        assert [(one.name, one.colour) for one in after.classes] == [(one.name, one.colour) for one in before.classes]
        # Learned from nothing, where before each decision went on from the last: equal up to the solver's tolerance.
        same = [(again.prediction(i).classes == predictions[i]).mean() for i in range(5)]
        assert min(same) > 0.98


def test_a_click_holds_at_once_and_can_be_taken_back(studio: Studio) -> None:
    studio.name("6/0", "ground")
    superpixels, merges = studio.regions(1)
    count = int(superpixels.max()) + 1
    assert merges.shape == (count - 1, 3)
    region = int(superpixels[5, 7])
    place = ((7.5) / superpixels.shape[1], 5.5 / superpixels.shape[0])
    found = studio.click(1, [place], count, "bird")
    assert [one.name for one in found.classes] == ["ground", "bird"]
    assert found.prediction.classes[region] == 1
    assert found.prediction.certainty[region] == 1
    assert "bird" in found.undoes
    assert studio.images(0, 10)[1].clicks == 1
    studio.undo()
    assert [one.name for one in studio.state().classes] == ["ground"]
    studio.redo()
    assert studio.prediction(1).classes[region] == 1
    erased = studio.click(1, [place], count, None)
    assert erased.prediction.classes[region] != 1


def test_a_click_at_a_coarser_level_is_about_the_whole_segment(studio: Studio) -> None:
    found = studio.click(0, [(0.5, 0.5)], 1, "everything")
    assert (found.prediction.classes == 0).all()
    stroke = [(0.1, 0.1), (0.9, 0.9)]
    studio.click(0, stroke, 10_000, "corner", "stroke 1")
    studio.click(0, [(0.9, 0.1)], 10_000, "corner", "stroke 1")
    assert studio.state().progress.clicks == 4
    studio.undo()
    assert studio.state().progress.clicks == 1


def test_splitting_and_joining_again(studio: Studio) -> None:
    before = studio.state()
    studio.split("6/1", 2)
    parts = [one.id for one in studio.state().clusters]
    assert parts == ["6/0", "6/1.0", "6/1.1", "6/2", "6/3", "6/4", "6/5"]
    shares = {one.id: one.share for one in studio.state().clusters}
    assert shares["6/1.0"] + shares["6/1.1"] == pytest.approx(before.clusters[1].share, rel=1e-4)
    studio.name("6/1.1", "house")
    studio.unsplit("6/1")
    assert [one.id for one in studio.state().clusters] == [one.id for one in before.clusters]
    studio.undo()
    assert studio.state().clusters[2].name == "house"


def test_names_of_another_k_are_kept_for_when_it_comes_back(studio: Studio) -> None:
    studio.name("6/0", "ground")
    studio.choose_k(3)
    assert [one.id for one in studio.state().clusters] == ["3/0", "3/1", "3/2"]
    studio.choose_k(6)
    assert studio.state().clusters[0].name == "ground"
    with pytest.raises(RunError, match="no clusters with k = 7"):
        studio.choose_k(7)


def test_names_given_without_the_page_are_there(run: Path, scenes: Path) -> None:
    assert main(["name", str(run), "0,2=ground", "1=sky", "3=void", "-k", "6"]) == 0
    with opened(run, scenes) as studio:
        state = studio.state()
        assert [one.name for one in state.clusters] == ["ground", "sky", "ground", "", "", ""]
        assert state.clusters[3].left_out
        studio.undo()  # given at once, taken back at once
        assert not studio.state().classes


def test_the_page_opens_with_the_clusters_that_have_names(run: Path, scenes: Path) -> None:
    assert main(["name", str(run), "0=ground", "-k", "3"]) == 0
    with opened(run, scenes) as studio:  # which would begin with 6
        assert (studio.state().k_now, studio.state().clusters[0].name) == (3, "ground")


@pytest.mark.slow
def test_two_studios_of_one_run_see_each_others_decisions(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as one, opened(run, scenes) as two:
        one.name("6/0", "ground")
        version = two.pulse().version
        two.name("6/1", "sky")
        assert [each.name for each in one.state().classes] == ["ground", "sky"]
        assert two.pulse().version > version
        one.undo()
        assert [each.name for each in two.state().classes] == ["ground"]


def test_questions_are_about_places_inside_of_regions_that_were_not_answered(studio: Studio) -> None:
    studio.name("6/0", "ground")
    studio.name("6/1", "sky")
    questions = studio.queue(8)
    assert len(questions) == 8
    first = questions[0]
    superpixels, _ = studio.regions(first.image)
    asked = studio.store.region_at(first.image, first.x, first.y)
    studio.click(first.image, [(first.x, first.y)], first.level, "sky")
    assert studio.prediction(first.image).certainty[asked] == 1
    later = studio.queue(8)
    assert all(studio.store.region_at(one.image, one.x, one.y) != asked for one in later if one.image == first.image)
    assert superpixels.max() < first.level <= superpixels.max() + 1


@pytest.mark.parametrize("scores", [(0.45, 0.05, 0.4), (0.4, 0.05, 0.45)])
def test_no_question_begins_with_none_of_the_names(scores: tuple[float, ...]) -> None:
    names = ("none of the names", "sky", "Road")
    assert _why(np.float32(scores), names, False) == "Road or none of the names? Both are about as likely."
    assert _why(np.float32([0.1, 0.46, 0.44]), names, False) == "sky or Road? Both are about as likely."


def test_an_audit_judges_what_is_predicted(studio: Studio) -> None:
    assert studio.audit() is None
    for number in range(6):
        studio.name(f"6/{number}", "scene")
    studio.audit_start(10, 3)
    places = settled(studio).audit()
    assert places is not None
    assert len(places.places) == 10
    assert {one.predicted for one in places.places} == {"scene"}
    for n in range(10):
        studio.audit_answer(n, UNSURE if n == 9 else "" if n == 8 else "scene")
    found = studio.audit()
    assert found is not None
    assert (found.answered, found.unsure, found.right, found.accuracy) == (10, 1, 8, 8 / 9)
    assert found.low < 8 / 9 < found.high
    assert [one.name for one in found.per_class] == ["scene"]
    studio.name("6/0", "other")
    again = studio.audit()
    assert again is not None
    assert again.decisions_since == 1
    assert [one.predicted for one in again.places] == ["scene"] * 10  # what was judged stays what it was
    with pytest.raises(ConfigError, match="no place 10"):
        studio.audit_answer(10, "scene")


def test_pictures_are_jpegs(studio: Studio) -> None:
    shown = studio.state().clusters[0].typical[0]
    for data in (studio.crop(shown.image, shown.box, "6/0", 64), studio.crop(0, (0, 0, 1, 1), None, 64)):
        assert data[:3] == b"\xff\xd8\xff"
    assert studio.photograph(0, 50)[:3] == b"\xff\xd8\xff"


def test_what_is_not_there_is_told(studio: Studio) -> None:
    for call, message in (
        (lambda: studio.name("6/9", "a"), "no cluster '6/9'"),
        (lambda: studio.crop(0, (0, 0, 1, 1), "5/0", 9), "no cluster '5/0'"),
        (lambda: studio.prediction(5), "no image 5; there are 5"),
        (lambda: studio.regions(-1), "no image -1"),
        (lambda: studio.click(0, [], 3, "a"), "needs a place"),
        (lambda: studio.split("6/0", 1), "2 to 8 parts, not 1"),
        (lambda: studio.rename("a", "b"), "no class 'a'"),
        (lambda: studio.hand_over(["coco"], False), "nothing has a name yet"),
        (lambda: studio.file("../../etc/passwd"), "no finished file"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()  # type: ignore[no-untyped-call]


def test_a_run_without_clusters_says_what_to_do(tmp_path: Path, run: Path, scenes: Path) -> None:
    (run / "clusters").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="no clusters yet; run: selfseg cluster"):
        opened(run, scenes)


@pytest.mark.slow
def test_what_is_handed_over_is_what_was_seen(run: Path, scenes: Path) -> None:
    with opened(run, scenes) as studio:
        for number in range(6):
            studio.name(f"6/{number}", ("ground", "sky", "house")[number % 3])
        studio.click(2, [(0.5, 0.1)], 40, "bird")
        studio.hand_over(["palette", "coco"], model=False)
        job = studio._job.wait()
        assert job is not None
        assert (job.error, job.done, job.running) == (None, 5, False)
        assert {one.name for one in job.files} == {"palette.zip", "coco.zip"}
        assert all(one.bytes == studio.file(one.name).stat().st_size > 0 for one in job.files)
        seen = settled(studio).prediction(2)
        superpixels, _ = studio.regions(2)
        expected = seen.classes[superpixels]
    with zipfile.ZipFile(run / "studio" / "handed_over" / "palette.zip") as packed:
        name = next(one for one in packed.namelist() if one.endswith("scene 1.png") and "Class" in one)
        with packed.open(name) as file:
            mask = np.asarray(Image.open(file))
    assert mask.shape == (90, 120)
    small = np.asarray(Image.fromarray(mask).resize(superpixels.shape[::-1], Image.Resampling.NEAREST))
    assert (small == expected).mean() > 0.93  # edges apart
