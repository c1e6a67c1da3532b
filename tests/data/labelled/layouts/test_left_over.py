from pathlib import Path

from selfseg.data.labelled.layouts.finding import understand
from selfseg.data.labelled.layouts.left_over import left_over


def test_everything_else_is_named_or_counted(labelled: Path) -> None:
    def found() -> tuple[str, ...]:
        layout = understand(labelled)
        assert layout is not None
        return left_over(layout)

    assert found() == ()
    (labelled / "val" / "labels" / "old.png").touch()
    (labelled / "photo.jpg").touch()
    for name in ("a.xyz", "b.xyz", "notes", ".hidden"):
        (labelled / "train" / name).touch()
    assert found() == (
        "1 label has no image: val/labels/old.png",
        "1 image has no place in a split: photo.jpg",
        "2 files .xyz, 1 file no suffix: selfseg does not read such files here",
    )
    for i in range(6):
        (labelled / f"{i}.jpg").touch()
    assert found()[1] == "7 images have no place in a split: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ..."
