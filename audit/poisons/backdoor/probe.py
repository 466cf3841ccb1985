"""Backdoor: does the trigger do what only a trained trigger does?

Question: is the trigger's label given to stamped inputs of other classes more often than to the
    same inputs without it? Are right answers lost, is any class given more often, than with
    triggers that an attacker could have used instead? (One that was moved to another class is a
    backdoor.)
Statistic: of a pattern g and a label l the rise(g, l): the mean, over inputs of classes other than
    l, of l's margin (its logit less the largest other) with g, less the same without. Margins and
    not rates: a backdoor may answer 40% of what resembles its trigger at 100%, but the trained
    pattern with the largest margin. Rates are what is reported, and what the tolerance is for.
Controls: on pictures other contents at the trigger's place, as strong as it, in four families, and
    its own content elsewhere (poisons.backdoor.controls); on texts other tokens, as many and as
    frequent (poisons.backdoor.phrases). Its own pixels in another order are none: those show how
    far a backdoor generalises, and an attacker's grid is no more random than another's.
Null, for a model that owes nothing to the trigger:
    content: given the label, the trigger is exchangeable with its controls, as if its content had
        been drawn as theirs was. p is its rank by rise(., label).
    pair: (trigger, label) is exchangeable with the pairs (control, any label) of at least one
        family, as if the label had been drawn, too. p is the share of pairs that rise as much, in
        the family where it is largest.
    Both have to be small, so that an error needs both nulls to fail; either alone gives the level.
    (Families are for triggers that are no draw from the pool: a yellow square is more than random
    pixels are, for any model, but not more than other squares of one colour for other labels.)
    Why they hold: trigger and model are independent if the model never saw it. Whatever a clean
    model does with bright or busy content, it does with other contents of that energy at that
    place; and a class that everything runs to is as likely any of them. Place, size, mode and
    energy are conditioned on. Leaving out what resembles the trigger is fair only if controls are
    resembled as seldom: so the level is checked on clean networks (tests/measurements), and not
    only claimed. Ranks of right answers lost and of the largest rise of any label likewise.
References: they have the same kinds of pairs put on them. Null: the model on trial is one more
    training like theirs, so that its rise, in units of its own margins, is exchangeable with all of
    theirs. One unlucky training does not decide: the rise also has to exceed that in every
    reference. A reference that answers the trigger as the model does excuses it.
Not controlled: a content that means the label (a frog's picture for "frog", "terrible film" for
    negative), and one that was chosen on a model like this one (adversarial patches): a reference
    answers them as well.
Found if all ranks are as small as they must be and the lower end of the rate's rise is beyond the
    tolerance. Clean if the upper ends of all three rates are within it (the first against no
    trigger, the others against typical controls on all inputs), and those controls cost few right
    answers by themselves (statistics.triggers).
Few inputs first: all controls are put on inputs until 32 are of other classes; the trigger and
    eight typical controls on all. At the defaults and ten classes that takes at most some
    234 x 36 + 10 x 400 = 12,400 forward passes, whatever is found.
Elsewhere: a phrase that is said to stand at the start or the end is also put on the same inputs at
    the other end and anywhere. Where the label's rate rises there beyond the tolerance, nothing
    passes; controls stand at the place that is said, so that nothing is found by it either.
Inconclusive: else; above all backdoors that any content wakes at that place, and no reference; weak
    ones (a rise of less than some 15 points); labels that other contents raise as much; few
    controls.
Source: Gu et al., "BadNets", arXiv 1708.06733, for the attack's success rate; the controls are
    ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poison_audit.case.case import Answers, Case
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.controls import ELSEWHERE
from poison_audit.poisons.backdoor.looking import (
    DRAWS,
    INPUTS,
    Seen,
    hits_elsewhere,
    look,
    stamps_of,
)
from poison_audit.poisons.backdoor.reading import POISON
from poison_audit.poisons.backdoor.references import Asked
from poison_audit.poisons.backdoor.stamps import Stamps
from poison_audit.poisons.backdoor.trial import trigger_of
from poison_audit.records import Measurement
from poison_audit.training.scoring import exact


def backdoor(
    model: Model, case: Case, rng: Rng, *, draws: int = DRAWS, inputs: int = INPUTS
) -> Measurement:
    """Ask what the trigger does, and what each control trigger does, on the same test samples.

    Args:
        draws: control triggers, at least 2. A finding at error a needs 5 / a - 1 of them.
        inputs: test samples to stamp, at most.
    """
    trigger = trigger_of(case)
    if trigger is None:
        return _missing(
            "needs the trigger (--trigger trigger.json, or [evidence.backdoor] trigger "
            "in audit.toml)"
        )
    if draws < 2:
        return _missing(f"needs at least two control triggers, draws is {draws}")
    order = torch.from_numpy(rng.named("inputs").numpy().permutation(len(case.test))[:inputs])
    chosen = case.test.at(order)
    stamps = stamps_of(trigger, model, chosen, case.retain, draws, rng)
    if stamps is None:
        return _missing(
            "needs texts short enough for the trigger to stay in them: as the model reads the "
            f"stamped texts, it is whole in none of {len(chosen)}"
        )
    if stamps.families.count(ELSEWHERE) > len(stamps.families) - 2:
        return _missing("needs a trigger that could have been another: no control is unlike it")
    places = order[stamps.inputs]
    if not bool((case.test.y.cpu()[places] != trigger.label).any()):
        return _missing(f"needs test samples of classes other than the trigger's, {trigger.label}")
    with exact(model.module):
        seen = look(model, stamps, case.test.at(places), trigger.label, rng)
        moved = seen and hits_elsewhere(trigger, model, case.test.at(places[seen.others]))
    if seen is None or moved is None:
        return _missing("the model's logits are not finite")
    digest = model.digest() if case.references else ""
    references = [  # but itself, and those without finite logits
        each for each in case.references
        if each.asked.get(POISON.name) is not None and each.digest != digest
    ]  # fmt: skip
    return Measurement(
        probe="backdoor",
        evidence={
            **_evidence(seen, trigger.label, stamps, references, places),
            "elsewhere": moved,
            "references": [
                each.compared(
                    (each.asked[POISON.name].stamped[places] == trigger.label)[seen.others],
                    torch.from_numpy(seen.stamped == trigger.label)[seen.others],
                )
                for each in references
            ],
        },
    )


def _evidence(
    seen: Seen, label: int, stamps: Stamps, references: list[Answers], places: Tensor
) -> dict[str, Any]:
    """Return the fields of the reading's evidence, references' counts aside."""
    k, other = seen.rises.shape[1], seen.others.numpy()
    at, most, kinds = seen.rises[0, label], seen.rises[0].max(), np.array(stamps.families)
    families = [
        {
            "name": name, "here": name != ELSEWHERE, "patterns": int(own.sum()),
            "rises": int((seen.rises[1:][own, label] >= at).sum()),
            "pairs": int((seen.rises[1:][own] >= at).sum()),
            "losses": int((seen.losses[1:][own] >= seen.losses[0] - 1e-9).sum()),
            "largest": int((seen.rises[1:][own].max(1) >= most).sum()),
        }
        for name in dict.fromkeys(stamps.families)
        if (own := kinds == name).any()
    ]  # fmt: skip
    asked = [(each.name, each.asked[POISON.name]) for each in references]
    theirs = np.concatenate([each.rises.ravel() for _, each in asked] or [np.empty(0)])
    classes = [
        _change((seen.stamped == c)[seen.y != c], (seen.typical == c)[:, seen.y != c])
        for c in range(k)
    ]
    wrong = seen.typical != seen.y
    return {
        "label": label,
        "hits": (seen.stamped == label)[other].astype(int).tolist(),
        "clean_hits": int((seen.clean == label)[other].sum()),
        "control_rates": seen.rates[1:].tolist(),
        "control_inputs": seen.few,
        "controls": stamps.controls,
        "looks": {
            "rise": _change((seen.stamped == label)[other], (seen.clean == label)[None, other]),
            "lost": _change(seen.stamped != seen.y, wrong),
            "classes": classes,
            "frail": float(wrong.mean() - (seen.clean != seen.y).mean()),
            "families": families,
            "own": int((seen.rises[0] >= at).sum()),
            "beside": [_beside(name, each, seen, label, places) for name, each in asked],
            "reference_pairs": theirs.size,
            "reference_rises": int((theirs >= at / seen.scale).sum()),
        },
    }


def _change(new: NDArray[Any], old: NDArray[Any]) -> dict[str, Any]:
    """Count on how many inputs, (n,), something is new against the mean of others, (m, n)."""
    change = new.astype(float) - old.astype(float).mean(0)
    # No input of another class: nothing is known, which n = 1 says.
    more, less = float(change.clip(0).sum()), float((-change).clip(0).sum())
    return {"n": max(1, len(change)), "more": more, "less": less}


def _beside(name: str, theirs: Asked, mine: Seen, label: int, places: Tensor) -> dict[str, Any]:
    stamped, clean = (part.numpy()[places.numpy()] for part in (theirs.stamped, theirs.clean))
    other = mine.others.numpy()
    rise = _change((stamped == label)[other], (clean == label)[None, other])
    return {
        "reference": name,
        "rate": float((stamped == label)[other].mean()),
        "rise": rise,
        "lost": float((stamped != mine.y).mean() - (clean != mine.y).mean()),
        "classes": [
            float((stamped == c)[own].mean() - (clean == c)[own].mean()) if own.any() else 0.0
            for c in range(mine.rises.shape[1])
            if (own := mine.y != c) is not None
        ],
    }


def _missing(reason: str) -> Measurement:
    return Measurement(probe="backdoor", evidence=None, missing=reason)
