"""An audit as the page shows it: its places with what is predicted there, and what the answers say so far."""

from __future__ import annotations

from collections.abc import Callable

from selfseg.studio.audit.places import draw_places, judge
from selfseg.studio.decisions.state import AuditRound
from selfseg.studio.regions import VOID, RegionStore
from selfseg.studio.server.contract import AuditPlace, AuditView, ClassPrecision


def view(audit: AuditRound, store: RegionStore, class_at: Callable[[int, float, float], str]) -> AuditView:
    """The places of an audit and its result.

    Args:
        audit: of the log.
        store: the collection's regions.
        class_at: the class that is predicted now at a place of an image, "" = none.
    """
    given = {answer.n: answer for answer in audit.answers}
    drawn = draw_places(
        store.sizes, audit.count, audit.seed, audit.weigh, lambda *place: store.region_at(*place) != VOID
    )
    open_ones = sorted((n for n in range(len(drawn)) if n not in given), key=lambda n: drawn[n].image)
    predicted = {n: class_at(*drawn[n]) for n in open_ones}  # image by image: each is unpacked once
    predicted |= {n: answer.predicted for n, answer in given.items()}
    places = [
        AuditPlace(n, place.image, place.x, place.y, predicted[n], given[n].verdict if n in given else None)
        for n, place in enumerate(drawn)
    ]
    found = judge(audit, len(store.names))
    low, high = found.interval if found.answered else (0.0, 1.0)
    return AuditView(
        places=places,
        answered=found.answered,
        unsure=found.unsure,
        right=found.accuracy.right,
        accuracy=found.accuracy.value,
        low=low,
        high=high,
        per_class=[
            ClassPrecision(one.name, one.precision.right, one.precision.judged, *one.precision.interval)
            for one in found.per_class
        ],
        sentence=found.finding,
        limits=found.limits,
        decisions_since=found.decisions_since,
        round=audit.seq,
    )
