"""Is the adapter right? Proved before anything is measured, since a wrong one hides poison.

A strict load proves little: normalisation is in no tensor, nor is a max-pool, the size of pictures
or the order of the labels. A model at 29% that should be at 98% beats chance, and its backdoor is
not seen. So other readings are tried, and a better one is named: how labels are numbered
(`matching`), how pictures are read (`inputs`, `batch_norm`), and whether accuracy is what training
must have reached, or what was stated (`level`). A doubt about any makes the verdict inconclusive.

It costs some 2,000 forward passes for pictures, 400 for texts. Where another reading of pictures is
better by what may be chance, up to 8,000 more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from poison_audit.case.case import Case
from poison_audit.case.doubts import Doubt
from poison_audit.checks.inputs import better_reading
from poison_audit.checks.level import doubts_of_level, doubts_of_retain, linear_answers
from poison_audit.checks.matching import Answers, Mixed, Witness, mixed_labels
from poison_audit.errors import some
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Sanity
from poison_audit.training.scoring import exact, logits

ASKED = 200
"""Retain samples, and as many test samples, that other readings are tried on."""
PER_CLASS = 20
"""Samples of a class that the order of labels is asked of, in each table."""
MOST = 1000
"""Most samples of a table that it is asked of; the linear classifier is fitted to as many."""
SHOWN = 30
"""Most classes that a doubt spells out the names of."""


def doubts_of_adapter(
    case: Case,
    sanity: Sanity,
    *,
    alpha: float,
    rng: Rng,
    names: Sequence[str] | None = None,
) -> tuple[Doubt, ...]:
    """Return what speaks against the way a model is read, the better one named.

    Args:
        case: in which nothing is changed.
        sanity: the accuracy on test samples, and what was expected.
        alpha: chance that a model that reaches what was stated is said to fall short.
        rng: draws the samples that are asked.
        names: what labels are called, in the order of the outputs.
    """
    model, count = case.model, max(ASKED, min(MOST, PER_CLASS * case.model.classes))
    retain, rest = _drawn(case.retain, count, rng.named("retain"))
    test, unseen = _drawn(case.test, count, rng.named("test"))
    forget, _ = _drawn(case.forget, MOST, rng.named("forget"))
    found = list(doubts_of_level(sanity, alpha=alpha))
    with exact(model.module):
        seen = {
            name: _answers(model, samples)
            for name, samples in (("retain", retain), ("test", test), ("forget", forget))
        }
    by_label = [
        torch.bincount(part.y.cpu(), minlength=model.classes) for part in (case.forget, case.retain)
    ]
    witness = Witness(answers=seen["forget"], forget=by_label[0], retain=by_label[1])
    mixed = _mixed(seen, model.classes, witness)
    better = None
    if model.reader is None:
        # Of what it was trained on the forget set is a part, and BatchNorm has seen that as well.
        share = len(case.forget) / max(1, len(case.retain) + len(case.forget))
        few, other, bad = (part.batch(slice(0, ASKED)) for part in (retain, test, forget))
        poison = bad.x[: round(ASKED * share)]
        trained = torch.cat([few.x[: ASKED - len(poison)], poison])
        fresh = (_fresh(retain, rest), _fresh(test, unseen))
        better = better_reading(model, few, other, forget=bad, trained=trained, fresh=fresh)
    # Pictures upside down, say, are also answered better by other labels: the better one counts.
    if mixed and (better is None or _accuracy(seen, mixed) > better.accuracy):
        found.append(_of_labels(mixed, names))
    elif better is not None:
        found.append(better.doubt)
    right = [seen[name].outputs == seen[name].labels for name in ("retain", "test")]
    if not any(doubt.spoils for doubt in found):
        stated = sanity.expected is not None  # a sharper yardstick, which it reaches
        linear = None if stated else linear_answers(rest, retain, model.classes)
        found += doubts_of_retain(right[0], right[1], linear)
    return tuple(found)


def _drawn(samples: Samples, count: int, rng: Rng) -> tuple[Samples, Samples]:
    """Return samples drawn at random, and some of the others."""
    order = torch.randperm(len(samples), generator=rng.torch())
    return samples.at(order[:count]), samples.at(order[count : count + MOST])


def _fresh(drawn: Samples, rest: Samples) -> Samples:
    """Return up to `MOST` samples that readings were not tried on."""
    others = drawn.at(range(min(ASKED, len(drawn)), len(drawn))).joined(rest)
    return others.at(range(min(MOST, len(others))))


def _answers(model: Model, samples: Samples) -> Answers:
    if len(samples) == 0:
        none = torch.zeros(0, dtype=torch.int64)
        return Answers(labels=none, outputs=none)
    return Answers(labels=samples.y.cpu(), outputs=logits(model, samples).argmax(1).cpu())


def _mixed(seen: dict[str, Answers], classes: int, witness: Witness) -> Mixed | None:
    """Return a better order of the labels: of both tables, or of the one whose order differs."""
    tables = [seen["retain"].joined(seen["test"]), seen["retain"], seen["test"]]
    every = (mixed_labels(part, classes=classes, forget=witness, tests=3) for part in tables)
    return next((mixed for mixed in every if mixed is not None), None)


def _accuracy(seen: dict[str, Answers], mixed: Mixed) -> float:
    """Return the share of retain and test samples that are answered if labels are matched so."""
    both = seen["retain"].joined(seen["test"])
    outputs = torch.tensor(mixed.output_of)[both.labels]
    return float((outputs == both.outputs).float().mean())


def _of_labels(mixed: Mixed, names: Sequence[str] | None) -> Doubt:
    classes = len(mixed.output_of)
    numbered = names is None
    known = [str(label) for label in range(classes)] if names is None else list(names)
    moved = [f"{known[label]} is output {mixed.output_of[label]}" for label in mixed.moved]
    pairs = some(moved, SHOWN)
    by_output = sorted(range(classes), key=mixed.output_of.__getitem__)
    if numbered:
        step = "Number the labels of the tables by the model's outputs, as training numbered them."
    else:
        order = ",".join(known[label] for label in by_output)
        step = (
            f"Give --names {order} (in the order of the model's outputs), if that is how training "
            "numbered them."
        )
    return Doubt(
        about="adapter",
        sentence=f"The labels seem to be mixed up: of {mixed.total} clean samples the model "
        f"answers {mixed.stated} as they are numbered, and {mixed.matched} if {pairs}.",
        step=step,
        spoils=True,
    )
