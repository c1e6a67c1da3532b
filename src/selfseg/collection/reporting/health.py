"""Is it learning? A run's log and its embedding in plain words.

What is judged, with the thresholds (they are rules of thumb, meant to catch a run that is lost, not to rank good ones):

    finite       the log's last loss is a number                               else bad
    loss         fall of the loss since its start (mean of the first and the last 5 % of lines), as a share of the
                 larger of the two: ok from 5 %; warn below; bad if it rose by more than 5 %. Judged once 10 % of
                 training is over.
    guessing     loss against log K, the loss of a uniform guess: above 0.98 log K bad in the second half of training,
                 warn in the first half or before step 200; ok below
    finding      share of object pixels whose nearest key is their own object's (MaskContrast) against that of a guess:
                 bad in the second half of training, warn in the first half or before step 200, up to twice the guess,
                 or with few keys up to a tenth of the way from the guess to 1; ok above
    prototypes   entropy of the prototypes' use as a fraction of log K: bad below 0.3 (collapse: few prototypes take
                 everything), warn below 0.6
    slots        active slots per view (SlotCon): bad below 1.5 (one takes everything), warn if more than half of the
                 prototypes find nothing
    rank         effective rank of the embeddings of a few images (Roy and Vetterli, "The effective rank", EUSIPCO
                 2007: exp of the entropy of the covariance's spectrum): bad below 2 (collapse to a line or a point),
                 warn below 6 or below D / 32, whichever is less
    contrast     mean cosine between pixels of different images: bad above 0.95 (all vectors alike), warn above 0.8
    clusters     share of the largest of K clusters: bad above 0.9, warn above 0.6 (0.9 for K = 2)
    speed        share of time spent waiting for images: warn above 0.4

Letters: D embedding dimension, h w embedding cells, N points, K prototypes or clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.ops.objectives.losses import effective_rank

Level = Literal["ok", "warn", "bad"]

CHECKED = {
    "finite": "the loss",
    "loss": "the loss",
    "guessing": "whether it does better than a guess",
    "finding": "whether objects are found again",
    "prototypes": "the use of the prototypes",
    "slots": "the active slots",
    "rank": "how many directions the vectors use",
    "contrast": "how much images differ",
    "clusters": "the sizes of the clusters",
    "speed": "the time spent waiting for images",
}
"""What each check looks at, in words."""

_FEWEST_STEPS = 200


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    Attributes:
        name: of the check, see the module's docstring.
        level: "ok", "warn" or "bad".
        sentence: what was found, for a reader who does not know the method.
        number: what was measured.
        advice: what to do; empty if ok.
    """

    name: str
    level: Level
    sentence: str
    number: float
    advice: str = ""


def judge(
    log: Sequence[Mapping[str, Any]],
    embeddings: Sequence[Tensor] = (),
    shares: Mapping[int, Sequence[float]] | None = None,
) -> tuple[Verdict, ...]:
    """All that can be judged from what there is.

    Args:
        log: lines of log.jsonl, oldest first.
        embeddings: (D, h, w) of a few images.
        shares: per K of a clustering, the clusters' shares of the pixels.

    Returns:
        The verdicts, worst first; checks without data are left out.

    Example:
        >>> lines = [{"step": s, "progress": s / 100, "loss": 4.8 - s / 50, "loss_uniform": 4.85} for s in range(100)]
        >>> [verdict.level for verdict in judge(lines)]
        ['ok', 'ok']
    """
    verdicts = [
        *_judge_loss(log),
        *_judge_finding(log),
        *_judge_prototypes(log),
        *_judge_slots(log),
        *_judge_speed(log),
    ]
    if embeddings:
        verdicts += _judge_embeddings(embeddings)
    for k, share in (shares or {}).items():
        verdicts.append(_judge_clusters(k, share))
    order = {"bad": 0, "warn": 1, "ok": 2}
    return tuple(sorted(verdicts, key=lambda verdict: order[verdict.level]))


def _judge_loss(log: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    lines = [line for line in log if isinstance(line.get("loss"), int | float)]
    if not lines:
        return []
    last = float(lines[-1]["loss"])
    if not math.isfinite(last):
        advice = "Lower the learning rate (--optimizer.base-lr) or clip gradients (--optimizer.clip 1)."
        return [Verdict("finite", "bad", "The loss is not a number any more.", last, advice)]
    tail = max(1, len(lines) // 20)
    start = float(np.mean([line["loss"] for line in lines[:tail]]))
    end = float(np.mean([line["loss"] for line in lines[-tail:]]))
    progress = float(lines[-1].get("progress", 1.0))
    fall = (start - end) / max(abs(start), abs(end), 1e-12)  # some losses are negative
    verdicts = []
    if progress >= 0.1 and len(lines) >= 4:
        change = f"from {start:.3f} to {end:.3f}"
        by = f" by {fall:.0%}" if start > 0 and end >= 0 else ""  # a share of a negative loss says nothing
        if fall < -0.05:
            advice = "Lower the learning rate; look at the curve for the step where it turned."
            verdicts.append(Verdict("loss", "bad", f"The loss has risen {change}.", fall, advice))
        elif fall < 0.05:
            advice = "Train longer or raise the learning rate; a loss that never falls teaches nothing."
            verdicts.append(Verdict("loss", "warn", f"The loss has hardly moved: {change}.", fall, advice))
        else:
            verdicts.append(Verdict("loss", "ok", f"The loss has fallen{by}, {change}.", fall))
    uniform = lines[-1].get("loss_uniform")
    if isinstance(uniform, int | float) and uniform > 0 and progress >= 0.1:
        share = end / uniform
        k = round(math.exp(uniform))
        if share > 0.98:
            steps = int(lines[-1]["step"])
            early = steps < _FEWEST_STEPS
            sentence = (
                f"A region's prototype is predicted no better than by a guess among {k} "
                f"(its loss is {end:.3f}, and a guess has {uniform:.3f})"
            )
            if early:
                advice = f"{steps} steps are too few to tell: train for some hundred at least."
            else:
                advice = (
                    "Start from pretrained weights (--init imagenet) or change the learning rate; check that the views "
                    "below show the same things."
                )
            level: Level = "bad" if progress > 0.5 and not early else "warn"
            verdicts.append(Verdict("guessing", level, sentence + (" yet." if early else "."), share, advice))
        else:
            sentence = f"A region's prototype is predicted better than by a guess among {k}"
            sentence += f" (its loss is {share:.0%} of the guess's)."
            verdicts.append(Verdict("guessing", "ok", sentence, share))
    return verdicts


def _judge_finding(log: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    lines = [line for line in log if "found" in line and "found_guess" in line]
    if not lines or float(lines[-1].get("progress", 1.0)) < 0.1:
        return []
    found = float(np.mean([line["found"] for line in lines[-max(1, len(lines) // 20) :]]))
    guess = float(lines[-1]["found_guess"])
    if guess >= 1:  # a single key is found by everybody
        return []
    shares = f"({found:.1%} of them; a guess among {round(1 / max(guess, 1e-9))} would find {guess:.1%})"
    if found > min(2 * guess, guess + 0.1 * (1 - guess)):
        return [
            Verdict("finding", "ok", f"Pixels find their own object more often than a guess would {shares}.", found)
        ]
    steps = int(lines[-1]["step"])
    early = steps < _FEWEST_STEPS
    level: Level = "bad" if float(lines[-1].get("progress", 1.0)) > 0.5 and not early else "warn"
    advice = (
        f"{steps} steps are too few to tell: train for some hundred at least."
        if early
        else "Train longer, start from pretrained weights (--init imagenet) or change the learning rate; check that "
        "the masks show objects."
    )
    sentence = f"Pixels find their own object hardly more often than a guess would {shares}."
    return [Verdict("finding", level, sentence, found, advice)]


def _judge_prototypes(log: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    values = [float(line["prototype_entropy"]) for line in log if "prototype_entropy" in line]
    if not values:
        return []
    entropy = float(np.mean(values[-max(1, len(values) // 20) :]))
    if entropy < 0.3:
        advice = "Collapse: freeze the prototypes for longer, lower the learning rate, or start from --init imagenet."
        return [
            Verdict("prototypes", "bad", f"A few prototypes take everything (use {entropy:.2f} of 1).", entropy, advice)
        ]
    if entropy < 0.6:
        advice = "Watch it; if it keeps falling, lower the learning rate or the number of prototypes."
        return [Verdict("prototypes", "warn", f"Many prototypes lie idle (use {entropy:.2f} of 1).", entropy, advice)]
    return [Verdict("prototypes", "ok", f"The prototypes are used evenly (use {entropy:.2f} of 1).", entropy)]


def _judge_slots(log: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    lines = [line for line in log if "active_slots" in line and "dead_prototypes" in line]
    if not lines:
        return []
    active = float(np.mean([line["active_slots"] for line in lines[-max(1, len(lines) // 20) :]]))
    dead = float(lines[-1]["dead_prototypes"])
    sentence = f"A view is divided among {active:.1f} slots; {dead:.0%} of the prototypes have found nothing lately."
    if active < 1.5:
        advice = "Collapse: lower the learning rate or the teacher's temperature, or start from --init imagenet."
        return [Verdict("slots", "bad", sentence, active, advice)]
    if dead > 0.5:
        return [Verdict("slots", "warn", sentence, active, "Fewer prototypes would do (--method.prototypes).")]
    return [Verdict("slots", "ok", sentence, active)]


def _judge_speed(log: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    waits = [float(line["data_wait"]) for line in log if "data_wait" in line]
    if not waits:
        return []
    wait = float(np.median(waits))
    if wait > 0.4:
        advice = "Raise --workers, or shrink the images on disk."
        return [Verdict("speed", "warn", f"Training waits for images {wait:.0%} of the time.", wait, advice)]
    return [Verdict("speed", "ok", f"Training waits for images {wait:.0%} of the time.", wait)]


def _judge_embeddings(embeddings: Sequence[Tensor]) -> list[Verdict]:
    samples = []
    for i, embedding in enumerate(embeddings):
        vectors = embedding.flatten(1).T
        drawn = np.random.default_rng((0, i)).permutation(len(vectors))[:500]
        samples.append(F.normalize(vectors[torch.from_numpy(drawn)].float(), dim=1))
    points = torch.cat(samples)
    if not bool(torch.isfinite(points).all()):
        return [Verdict("rank", "bad", "The embedding holds values that are not numbers.", math.nan, "Train anew.")]
    dim = points.shape[1]
    rank = float(effective_rank(points))
    sentence = f"The embedding uses about {rank:.1f} of its {dim} directions"
    if rank < 2:
        advice = "Collapse: all pixels lie on a line. Lower the learning rate, or start from --init imagenet."
        verdicts = [Verdict("rank", "bad", f"{sentence}: it has collapsed.", rank, advice)]
    elif rank < min(6, dim / 32):
        verdicts = [Verdict("rank", "warn", f"{sentence}, so it can hold only few concepts.", rank, "Train longer.")]
    else:
        verdicts = [Verdict("rank", "ok", f"{sentence}.", rank)]
    if len(samples) > 1:
        means = torch.stack([sample.mean(0) for sample in samples])
        total, own = means.sum(0), means.square().sum()
        n = len(means)
        cosine = float((total.square().sum() - own) / (n * (n - 1)))  # mean over pairs of different images
        cosine = 0.0 if abs(cosine) < 0.005 else cosine  # or it would be written -0.00
        if cosine > 0.8:
            level: Level = "bad" if cosine > 0.95 else "warn"
            sentence = f"Pixels of different images are nearly alike (mean cosine {cosine:.2f})."
            advice = "The vectors crowd in one direction: train longer, or start from --init imagenet."
            verdicts.append(Verdict("contrast", level, sentence, cosine, advice))
        else:
            sentence = f"Pixels of different images differ (mean cosine {cosine:.2f})."
            verdicts.append(Verdict("contrast", "ok", sentence, cosine))
    return verdicts


def _judge_clusters(k: int, share: Sequence[float]) -> Verdict:
    largest = max(share)
    sentence = f"Of {k} clusters the largest holds {largest:.0%} of the pixels"
    if largest > max(0.6, 1.8 / k):
        advice = "The embedding hardly tells things apart yet: train longer, then cluster again."
        return Verdict("clusters", "bad" if largest > 0.9 else "warn", f"{sentence}.", largest, advice)
    return Verdict("clusters", "ok", f"{sentence}.", largest)
