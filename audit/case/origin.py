"""Where a checkpoint comes from, as far as its header says: what it was trained on, or made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from poison_audit.case.doubts import Doubt
from poison_audit.case.forget import ForgetSet, Split
from poison_audit.errors import InputError, Problem
from poison_audit.models.header import ANEW_KEY, DATA_KEY, METHOD_KEY, OF_KEY, WITHOUT_KEY
from poison_audit.models.samples import Samples

Header = Mapping[str, str]
TRUST = (
    "The checkpoint does not say what it was trained on. That it was this table is taken on trust. "
    "With a wrong key, trigger or list of targets, a poisoned model looks clean. Compare the "
    "commitments with those published before training."
)


def made_of(header: Header) -> tuple[str, ...]:
    """Return the digests of the models that this one was made of, the first one first."""
    return tuple(part for part in header.get(OF_KEY, "").split(",") if part)


def elsewhere(
    header: Header, train: Samples, parts: Split, forget: ForgetSet
) -> tuple[tuple[Doubt, ...], tuple[str, ...]]:
    """Compare what a checkpoint says it was trained on with the table on trial.

    Returns:
        (doubts, what has to be taken on trust).
    """
    data = header.get(DATA_KEY)
    if data is None:
        return (), (TRUST,)
    rest = header.get(WITHOUT_KEY) == forget.digest
    if data == (_quiet(parts.retain) if rest else train).digest():
        return (), ()
    return (
        Doubt(
            about="evidence",
            sentence="The checkpoint says that it was trained on another table than this one, or "
            "on this one read otherwise (ids, values, --max-tokens, --prompt). A model that never "
            "saw this table's poison looks clean.",
            step="Give the training table, and its evidence, as they were given to `poison-audit "
            "train`.",
        ),
    ), ()


def judged_alone(header: Header, path: Path) -> tuple[Doubt, ...]:
    """Doubt a repaired model that stands where the deployed one should: what was lost?"""
    method = header.get(METHOD_KEY)
    if method is None:
        return ()
    return (
        Doubt(
            about="candidate",
            sentence=f"{path} was made by {method} from another model, as its header says. Its "
            "accuracy was compared with no other's, and a broken model looks clean to every probe.",
            step="Judge it beside the model that it was made of: `poison-audit probe ORIGINAL "
            f"--candidate fixed={path} --gate fixed`, with what else was given here.",
        ),
    )


def wrong_original(name: str, header: Header, deployed: str) -> tuple[Doubt, ...]:
    """Doubt a candidate that says it was made of another model than the one it is compared with."""
    stated = made_of(header)
    if not stated or deployed in stated:
        return ()
    return (
        Doubt(
            about="candidate",
            sentence=f"The candidate {name} was made of another model than the deployed one, as "
            f"its header says (of weights {stated[0][:12]}, here {deployed[:12]}): what it lost "
            "against its own original is not known.",
            step="Give the model that it was made of as MODEL.",
        ),
    )


def refuse_reference(header: Header, train: Samples | None, where: str) -> None:
    """Refuse a reference whose header says that it saw the poison.

    Raises:
        InputError: it was made from another model, or trained on the whole table.
    """
    fix = "Give a model that was trained without the forget set (`poison-audit train --without`)."
    if (method := header.get(METHOD_KEY)) is not None and ANEW_KEY not in header:
        what = f"was made by {method} from another model, which saw the poison"
        raise InputError(Problem(what, f"--reference {where}", fix))
    if train is not None and header.get(DATA_KEY) == train.digest():
        what = "was trained on the whole training table, the forget set included"
        raise InputError(Problem(what, f"--reference {where}", fix))


def _quiet(samples: Samples) -> Samples:
    """Return samples without noise that none of them carries, as a reference is trained on."""
    if samples.noisy is None or bool((samples.noisy >= 0).any()):
        return samples
    return replace(samples, noise=None, noisy=None)
