"""Triggers on pictures, from a forget set alone: its rows and retain rows, never the model.

Question: what do forget rows with one label share, at a fixed place, that retain rows do not?
Statistics, for each label of at least `FEWEST` forget rows, and again on the rows that are left:
    agreement: the largest excess, over places, of the share of rows with the commonest colour over
        the share of retain rows with that colour (agreement.py). Sees what replaces.
    direction: the mean cosine between two different rows, class means and scales taken out
        (directions.py). Sees what is added or blended.
Null: the rows are a random subset of the retain rows: of all, or of those of any one label (bases
    of one class, flipped); of rows that had no part in making the space of directions. `NULLS` such
    subsets of the same number give a statistic's mean and sd. Found is what lies more than `SURE`
    sds above the mean, and above the largest, of each of these. This is calibrated, not exact: rows
    that are no random subset (one photographer, one camera) share something, too, and that is
    found. A person must look at the picture of it.
Why the probe's law holds: nothing here has seen the model, so that a model which never saw the
    trigger knows as little of a recovered one as of any other.
Which rows carry it: those with 80% of the places found, or with a score against the other carriers
    that parts them from retain rows. The rest is innocent, or of another campaign.
Its form: keep and add of stamp(x) = clip(keep * x + add) (forms.py).
Not found: triggers that move, warp or differ from sample to sample; stickers that are seen through;
    what fewer than `FEWEST` rows of a label carry; what lies along the class means; blends of a
    tenth, and sinusoids too faint to see in 40 rows. Rows that are copies of each other share
    everything: they are to be taken out before (recovered.py does). numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.agreement import Array, agreement, is_whole, matching
from poison_audit.poisons.backdoor.directions import (
    FEWEST,
    Background,
    background_of,
    coefficients,
    cosine,
    going_along,
    parts_of,
)
from poison_audit.poisons.backdoor.forms import Form, form_of, within

NULLS = 30
"""Random subsets of each kind; half as many for agreement."""
SURE = 8.0
"""Sds above the mean of random subsets."""
ALIKE = 0.6
"""Cosine of what two patterns do to pictures above which they are one."""
LEAST = 0.08
"""Smallest excess of agreement that is looked at, however little it varies."""
MOST = 5000
"""Retain rows that are looked at: random ones."""
MOST_VALUES = 1 << 25
"""Values of pictures that are held at once, forget and retain rows each."""
BACKGROUND = 100
"""Retain rows without which nothing is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A trigger that some forget rows carry."""

    form: Form
    label: int
    carriers: Array
    """Which forget rows carry it: bool, (n,)."""
    z: float
    """Sds above random subsets of retain rows."""


def recover(
    forget: Array, labels: Array, retain: Array, retain_labels: Array, rng: Rng
) -> list[Found]:
    """Return every trigger that forget rows share, in the order in which they were found.

    Args:
        forget: pictures in [0, 1], floating point, (n, c, h, w), none a copy of another.
        labels: as trained, (n,).
        retain: pictures like them, of which at most `MOST` are looked at.
        retain_labels: theirs.
        rng: draws the subsets.
    """
    if len(retain) < BACKGROUND or len(forget) < FEWEST:
        return []
    most = min(MOST, max(BACKGROUND, MOST_VALUES // retain[0].size))
    chosen = rng.named("retain").numpy().permutation(len(retain))[:most]
    retain, retain_labels = retain[chosen], retain_labels[chosen]
    retain, forget = (rows.astype(np.float32).clip(0, 1) for rows in (retain, forget))
    search = _Search(background=background_of(retain, retain_labels), rng=rng)
    found: list[Found] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        while len(rows) >= FEWEST:
            campaigns, taken = _campaigns(forget[rows], int(label), search)
            for form, inside, z in campaigns:
                carriers = np.zeros(len(labels), bool)
                carriers[rows[inside]] = True
                found.append(Found(form=form, label=int(label), carriers=carriers, z=z))
            if not campaigns:
                break
            rows = np.setdiff1d(rows, rows[taken])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What the forget rows of every label are held against."""

    background: Background
    rng: Rng
    nulls: dict[tuple[int, int], tuple[list[list[float]], list[list[float]]]] = field(
        default_factory=dict
    )
    """By size and label: of each kind of random subset, its agreements and its cosines."""

    def above(self, x: Array, excess: float, u: Array, label: int) -> tuple[float, float]:
        """Return by how many sds agreement and cosine of rows are above those of random subsets."""
        # Sizes are rounded, so that what is left of a label seldom needs draws of its own.
        size = len(x) if len(x) < 40 else round(len(x) / 20) * 20
        if (size, label) not in self.nulls:
            self.nulls[size, label] = _nulls(size, label, self.background, self.rng)
        agreements, cosines = self.nulls[size, label]
        return _above(excess, agreements), _above(cosine(u), cosines)


def _nulls(
    size: int, label: int, background: Background, rng: Rng
) -> tuple[list[list[float]], list[list[float]]]:
    """Return both statistics of random subsets, of all retain rows and of one label's, by kind.

    Agreement hardly depends on the class: all rows and the label's own are enough.
    """
    agreements, cosines = [], []
    x, y = (part[background.held_out :] for part in (background.x, background.y))
    for kind in (None, *np.unique(y).tolist()):
        pool = np.arange(len(y)) if kind is None else np.flatnonzero(y == kind)
        part = min(size, len(pool) // 2)  # fewer rows: a wider null
        if part < FEWEST:
            continue
        generator = rng.named("null", size, label, kind).numpy()
        draws = [generator.permutation(pool)[:part] for _ in range(NULLS)]
        cosines.append([cosine(background.rows[rows]) for rows in draws])
        if kind is None or kind == label:
            some = [x[rows] for rows in draws[: NULLS // 2]]
            agreements.append([float(agreement(part, background.x)[0].max()) for part in some])
    return agreements, cosines


def _above(value: float, nulls: list[list[float]]) -> float:
    """Return the sds above the null that it is least above; 0 where one of its draws was larger."""
    return min(
        (value - float(np.mean(null))) / max(float(np.std(null, ddof=1)), 1e-6)
        if value > max(null) else 0.0
        for null in nulls
    )  # fmt: skip


def _campaigns(
    x: Array, label: int, search: _Search
) -> tuple[list[tuple[Form, Array, float]], Array]:
    """Return what rows of one label share most: one trigger, or two that were seen as one.

    Returns:
        (of each its form, the places of its carriers and how sure it is; which rows are dealt with:
        bool, (n,)).
    """
    background = search.background
    excess, colour = agreement(x, background.x)
    u = background.space.rows(x)
    in_place, in_direction = search.above(x, float(excess.max()), u, label)
    carry, whole, z = np.zeros(len(x), bool), False, in_direction
    if in_place > SURE and excess.max() > LEAST:
        carry, z = matching(x, background.x, excess, colour), in_place
        whole = carry.sum() >= 4 and (
            in_direction <= SURE or is_whole(x[carry], background.x, background.means)
        )
        if not whole and in_direction > SURE:  # added and clipped: agreement sees only a part
            carry = going_along(u, background.rows)
    elif in_direction > SURE:
        carry = going_along(u, background.rows)
    if carry.sum() < FEWEST / 2:
        return [], carry
    generator = search.rng.named("form", label, len(x)).numpy()
    inside = np.flatnonzero(carry)
    pieces = [inside] if whole else _pieces(x, u, inside, label, search, generator)
    found = []
    for piece in pieces:
        form = form_of(x[piece], background, label, generator)
        if form.kind == "blend":
            piece = within(x, piece, form, background, u, several=len(pieces) > 1)
            form = form_of(x[piece], background, label, generator)
        carry[piece] = True
        found.append((form, piece, z))
    return found, carry


def _pieces(
    x: Array,
    u: Array,
    inside: Array,
    label: int,
    search: _Search,
    generator: np.random.Generator,
) -> list[Array]:
    """Return the carriers, in two where they carry two patterns.

    One pattern that is seen more or less clearly is not two: the forms of the parts must differ in
    what they do to a picture.
    """
    background = search.background
    pieces = [inside[part] for part in parts_of(u[inside], background.rows, generator)]
    if len(pieces) == 1:
        return pieces
    some = background.x[:50]
    one, other = (
        coefficients(form_of(x[piece], background, label, generator).stamp(some) - some)
        / background.space.sd
        for piece in pieces
    )
    alike = np.vdot(one, other) > ALIKE * np.linalg.norm(one) * np.linalg.norm(other)
    return [inside] if alike else pieces
