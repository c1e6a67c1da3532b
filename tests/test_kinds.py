from dataclasses import dataclass

import pytest

from selfseg import kinds
from selfseg.kinds import check_kinds


@dataclass(frozen=True)
class Counts:
    rows: tuple[tuple[int, ...], ...]


def test_a_table_of_whole_numbers_is_checked_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number by number the confusion of 3,000 classes took over a minute."""
    real, asked = kinds._fits, []
    monkeypatch.setattr(kinds, "_fits", lambda *arguments: asked.append(1) or real(*arguments))
    check_kinds(Counts(tuple(tuple(range(300)) for _ in range(300))))
    assert len(asked) <= 2 * 300


@pytest.mark.parametrize("wrong", [True, 1.0, "1", None, 1 << 64, -(1 << 64)])
@pytest.mark.parametrize("place", [0, 2])
def test_one_wrong_number_among_many_is_found(wrong: object, place: int) -> None:
    row: list[object] = [3, 4, 5]
    row[place] = wrong
    with pytest.raises(TypeError, match="rows is"):
        check_kinds(Counts(((1, 2, 3), tuple(row))))  # type: ignore[arg-type]
    check_kinds(Counts(((), ((1 << 64) - 1, 0, -(1 << 64) + 1))))
