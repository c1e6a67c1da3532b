"""Promise 11: two runs with one seed are the same by a hash of everything, and losses are those that were kept.

tests/fixtures/golden_losses.json holds what `python benchmarks/golden_steps.py` printed: five losses of each method.
Another processor or torch adds up in another order, so they may differ by a thousandth; another training differs by far
more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torture.parts._runs import ROOT, photographs
from torture.rows import Row

PROMISE = "two runs with one seed are the same by a hash of everything, and losses are those that were kept"

TOLERANCE = 1e-3
"""Share of a loss, or of 1 where it is smaller."""


def run(work: Path, quick: bool) -> list[Row]:
    """Quick = three methods; in full all of them."""
    for folder in ("tests", "benchmarks"):
        if str(ROOT / folder) not in sys.path:
            sys.path.insert(0, str(ROOT / folder))
    from golden_steps import draw, five_steps
    from tiny import RUNS

    kept = json.loads((ROOT / "tests" / "fixtures" / "golden_losses.json").read_text())
    images = photographs(work)
    (work / "again").mkdir()
    drawn = draw(work / "again" / "photos", work / "again" / "photos_masks")
    if drawn != kept["photographs"]:
        return [Row("losses as they were kept", 0, True, "this OpenCV draws other photographs: not compared")]
    rows = []
    for name in ("vice", "slotcon", "maskcontrast") if quick else RUNS:
        turns = [five_steps(name, images, work / "curves" / f"{name}{turn}") for turn in range(1 if quick else 2)]
        first = turns[0]
        found, wanted = [float.fromhex(loss) for loss in first["losses"]], kept["losses"][name]
        off = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, wanted, strict=True))
        ok = turns[-1] == first and off <= TOLERANCE
        rows.append(Row(f"one seed, one curve: {name}", len(turns), ok, f"{first['state']}, off by {off:.1e}"))
    return rows
