"""Names of clusters without the page: `selfseg name`. It and the studio know the names that the other one gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfseg.collection.clusters import available_clusters, load_clusters
from selfseg.data.labelled.legend import Colour
from selfseg.errors import RunError
from selfseg.pages.shown_path import ShownPath
from selfseg.segmenter.naming import LEFT_OUT, Named, cluster_name, named, renamed
from selfseg.storage.files import mark_output, read_json, sole_use
from selfseg.storage.remote.places import at_places
from selfseg.studio.carrying.clusterings import fingerprint, keep_names
from selfseg.studio.decisions.log import DecisionLog
from selfseg.studio.decisions.state import Named as Decided
from selfseg.studio.decisions.state import State, counted
from selfseg.telling import tell

_PATIENCE = 30.0  # seconds that a call waits for another one, which takes about one


@at_places(runs=["run"])
def name_clusters(
    run: Path | str,
    names: Mapping[int, str],
    k: int | None = None,
    colours: Mapping[str, Colour] | None = None,
) -> Path:
    """Name some of a run's clusters, beside those that have names already, and write `RUN/segmenter`.

    Names that were given in the studio count, and the studio knows those that are given here. Names of clusters that
    were made anew since don't count: cluster 3 is another one now. New classes come after those of before: as long as a
    class is there, masks have the same value for it, unless one before it is gone.

    Args:
        run: the run's folder.
        names: of clusters, by number. The same name again makes them one class; "void" leaves a cluster out; "" takes
            its name away.
        k: which clustering; that of the names so far if None, else the largest one there is.
        colours: of classes, by name; the others keep theirs.

    Returns:
        `RUN/segmenter`.

    Raises:
        ConfigError: see `selfseg.segmenter.naming.from_clusters`; or if the names so far are of another k.
        RunError: if the run has no such clusters, or is none; or if somebody else is naming them.
        StorageError: if the run can't be written to.
    """
    run = Path(run)
    load_clusters(run, k)  # says what to do if there are none, before a folder is made
    given = {number: cluster_name(name) for number, name in names.items()}
    mark_output(run / "studio")
    # Of two calls at once one would lose what the other has named.
    with sole_use(run / "studio", _PATIENCE, fixed=True):
        made = renamed(run, given, k, colours, names_so_far(run, k))
        _tell_of_others(run, made.about["k"])
        out = [number for number, name in given.items() if name == LEFT_OUT]
        kept = {number: name for number, name in given.items() if name != LEFT_OUT}
        # The log first: the studio shows them, and nobody else has what a person decided.
        keep_names(run, load_clusters(run, made.about["k"]), kept, out)
        return ShownPath(made.save(run / "segmenter"))


def names_so_far(run: Path | str, k: int | None = None) -> Named | None:
    """What clusters of a run are called, by `selfseg name` and in the studio; None if none of them is called anything.

    Args:
        run: the run's folder.
        k: of which clustering, if no other one has a segmenter with names; None = that of the segmenter, or else the
            one that was decided about last in the studio.

    Raises:
        CheckpointError: see `selfseg.segmenter.naming.named`.
    """
    run, before = Path(run), named(run)
    if before is not None and before.names:
        k = before.k
    state = DecisionLog.open(run / "studio").state()
    for one in reversed(state.by_clustering):
        if k in (None, one.k) and one.k in available_clusters(run) and _is_now(run, one):
            return _joined(before, one, state)
    return before


def _is_now(run: Path, decided: Decided) -> bool:
    try:
        return decided.decided > 0 and fingerprint(load_clusters(run, decided.k)) == decided.fingerprint
    except RunError:  # of an earlier embedder, or damaged
        return False


def _joined(before: Named | None, decided: Decided, state: State) -> Named:
    """What the studio knows goes before what the segmenter knows, which may be older. Parts of clusters don't count."""
    kept = {} if before is None else dict(before.names)
    given = {**decided.names, **dict.fromkeys(sorted(decided.left_out), LEFT_OUT)}
    kept |= {int(path.partition("/")[2]): name for path, name in given.items() if "." not in path}
    colours = {name: state.colours[name] for name in kept.values() if name in state.colours}
    return Named(decided.k, kept, {**colours, **({} if before is None else before.colours)})


def _tell_of_others(run: Path, k: int) -> None:
    """Say what of earlier decisions the new segmenter doesn't hold."""
    state = DecisionLog.open(run / "studio").state()
    now = fingerprint(load_clusters(run, k))
    resting = [one for one in (*state.resting, *state.by_clustering) if one.k == k and one.fingerprint not in ("", now)]
    if resting and (count := sum(one.decided for one in resting)):
        tell(
            f"the clusters with k = {k} were made anew since {count:,} of them got a name or "
            f"{'was' if count == 1 else 'were'} left out. What was said of earlier ones is not used; the studio can "
            f"carry it over: selfseg studio {run} IMAGES --decisions {run / 'studio'}"
        )
    parts = [one for one in state.by_clustering if one.k == k and one.splits and one.fingerprint == now]
    clicks = len(state.clicks)
    left = [counted(clicks, "click")] if clicks else []
    left += [counted(len(parts[0].splits), "split cluster")] if parts else []
    if left:
        tell(
            f"the segmenter does not use the {' and the '.join(left)} made in the studio; “Hand over” there makes one "
            "that does"
        )
    try:
        made_of = read_json(run / "segmenter" / "segmenter.json")["about"]["made_of"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if made_of == "decisions":
        tell(f"{run / 'segmenter'} was made by “Hand over” in the studio, and is replaced")
