"""What a forget set leaves open: rows that no probe looks at, copies that stay, how much it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from poison_audit.case.copies import contents
from poison_audit.case.doubts import Doubt
from poison_audit.case.files import Evidence
from poison_audit.case.forget import ForgetSet, Split
from poison_audit.case.rows import label_spelt
from poison_audit.errors import some
from poison_audit.models.samples import Samples


def unseen_rows(
    forget: ForgetSet, brought: Sequence[Evidence], *, measured: bool
) -> tuple[Doubt, ...]:
    """Doubt a forget set some of whose rows no probe looks at: what of them is left, nobody knows.

    Args:
        forget: the forget set.
        brought: the evidence of each poison.
        measured: whether anything is; without, nothing passes anyway, and that is said already.
    """
    seen = frozenset(place for evidence in brought for place in evidence.explains)
    left = [row for row, place in enumerate(forget.positions) if place not in seen]
    if not left or not measured:
        return ()
    count = Counter(forget.attacks[row] for row in left)
    parts = [
        f"{number:,} {'name no attack' if not attack else f'are said to be {attack}'}"
        for attack, number in count.most_common()
    ]
    why = "".join(f" {sentence}" for evidence in brought for sentence in evidence.unlike)
    named = some([forget.ids[row][:60] for row in left])
    return (
        Doubt(
            about="rows",
            sentence=f"No probe looks at {len(left):,} of {len(forget):,} forget samples: "
            f"{', '.join(parts)} ({named}).{why}",
            step="Say in forget.csv's column attack what each of them is, and give the evidence of "
            "that attack (key, trigger, targets, or a reference). What was not looked at cannot "
            "pass.",
        ),
    )


def left_behind(parts: Split) -> tuple[tuple[Doubt, ...], tuple[str, ...]]:
    """Name the forget samples that stand in what is retained as well.

    With the same label that is the same poison: it stays in training, whatever is forgotten, and
    every reference has seen it. With another label it may be the sample that a wrong label was put
    on, which is how labels are flipped.

    Returns:
        (doubts, limits).
    """
    retain, forget = parts.retain, parts.forget
    kept: dict[bytes, list[int]] = {}
    gone = set(_plain(forget))
    for place, key in enumerate(_plain(retain)):
        if key is not None and key in gone:
            kept.setdefault(key, []).append(place)
    same, other = list[tuple[str, str]](), 0
    for row, key in enumerate(_plain(forget)):
        for place in kept.get(key, ()) if key is not None else ():
            if int(retain.y[place]) == int(forget.y[row]):
                same.append((forget.ids[row], retain.ids[place]))
            else:
                other += 1
    limits = (
        (f"{other:,} retained samples are copies of forget samples under another label.",)
        if other
        else ()
    )
    if not same:
        return (), limits
    copies = {name for _, name in same}
    told = some([f"{kept} = {gone}" for gone, kept in same])
    return (
        Doubt(
            about="rows",
            sentence=f"{len(copies):,} retained samples are copies of forget samples, with the "
            f"same label: {told}. That poison stays in training, and references have seen it.",
            step=f"Name them in forget.csv, too: {some(sorted(copies))}.",
        ),
    ), limits


def unusual(forget: ForgetSet, train: Samples) -> tuple[str, ...]:
    """Say what is out of the ordinary about how much is to be forgotten, in sentences."""
    told = []
    if forget.most:
        share = len(forget) / len(train)
        told.append(
            f"{len(forget):,} of {len(train):,} training samples ({share:.0%}) are to be "
            "forgotten, more than half. Does forget.csv name what is to go, and not what stays?"
        )
    labels = train.y.tolist()
    gone = Counter(labels[place] for place in forget.positions)
    whole = [label for label, number in Counter(labels).items() if number == gone[label]]
    if whole:
        spelt = some([label_spelt(train, label) for label in sorted(whole)])
        told.append(
            f"All training samples of {'class' if len(whole) == 1 else 'classes'} {spelt} are to "
            "be forgotten: whatever trains on the rest never sees that label."
        )
    return tuple(told)


def partial_key(
    noun: str, planted: Collection[str], present: Collection[str], ids: Collection[str]
) -> tuple[Doubt, ...]:
    """Doubt a forget set that lacks samples which its key planted.

    Whoever chooses which canaries are looked at decides what they show: without the 50 of 400 that
    a model remembers best, it passes.

    Args:
        noun: what they are.
        planted: ids of the key.
        present: those in the forget set.
        ids: of the training table.
    """
    missing = sorted(set(planted) - set(present))
    if not missing:
        return ()
    there = len(set(missing) & set(ids))
    where = f"{there:,} of them stand in the training table as retained samples"
    return (
        Doubt(
            about="evidence",
            sentence=f"{len(missing):,} of the {len(planted):,} {noun} that the key planted are "
            f"not in the forget set ({some(missing)}); {where}. How was the subset chosen? The "
            f"figures are of the other {len(planted) - len(missing):,} alone.",
            step="Name them all in forget.csv. What methods do with a part is asked by "
            "`poison-audit check --found SHARE`.",
        ),
    )


def _plain(samples: Samples) -> Iterator[bytes | None]:
    """Yield contents; None for what carries noise on its embeddings, which no other sample does."""
    noisy = [-1] * len(samples) if samples.noisy is None else samples.noisy.tolist()
    for key, noise in zip(contents(samples), noisy, strict=True):
        yield key if noise < 0 else None
