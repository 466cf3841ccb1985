"""The copy for a rehearsal: trained on the noisy forget samples until they are held.

Held. The copy holds the canaries once their mean loss is down to that of as many retain samples in
the deployed model: as firmly as it held what it was trained on. A hundredth of the distance from
there to the test samples' mean loss is forgiven, since of a model that fits its training set
perfectly both figures are zero but for rounding. A copy that never gets there holds less than a
real poison would: a method that fails on it fails all the more, and one that passes proves nothing.

The rate. The last rate of a decaying schedule is 0, and a small one leaves no trace: 30 epochs at a
tenth of the peak gave fixtures/digits canaries a mean leak score of 0.1. So training goes on in
warm restarts of the recipe's own schedule (Loshchilov and Hutter, arXiv 1608.03983), from the
checkpoint: a tenth of the recipe's epochs, then twice that, and so on, at most the recipe's epochs
together. Each ends at the schedule's last rate; there it is looked whether the canaries are held.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poison_audit.atomic import read_plainly, write_atomically
from poison_audit.case.case import Case
from poison_audit.case.signing import is_ours, signature
from poison_audit.engine.rehearsal_planting import mean_loss
from poison_audit.errors import DivergedError, InputError
from poison_audit.models.checkpoint import load_like
from poison_audit.models.model import Model
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.records import Json
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend, recipe_settings

FORGIVEN = 0.01
"""Share of the distance between test and retain loss by which a held canary may exceed retain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The copy, and how firmly it holds the canaries."""

    model: Model
    epochs: int
    """Passes over train that it was trained further."""
    loss: float
    """Mean loss of the canaries in it."""
    held: bool
    broken: str | None = None
    """Why it is of no use."""


_COPY = "copy"
_TOLD = ("epochs", "loss", "held", "broken")
"""What is known of a copy beside its weights."""


def _cycles(limit: int) -> Iterator[int]:
    """Yield the epochs of each restart, each twice the last, `limit` together.

    >>> list(_cycles(30)), list(_cycles(5))
    ([3, 6, 12, 9], [1, 2, 2])
    """
    length, left = math.ceil(limit / 10), limit
    while left > 0:
        yield min(length, left)
        length, left = 2 * length, left - length


def train_copy(case: Case, rng: Rng, *, target: float, limit: int) -> Copy:
    """Train a copy of the case's model on retain and forget until it holds the forget samples.

    Args:
        case: the poisoned case; its model is left as it is.
        rng: decides the order of the samples, augmentation and dropout.
        target: mean loss of the forget samples at which they are held.
    """
    model, recipe = case.model.clone(), case.recipe
    data = case.retain.joined(case.forget)
    batches = shuffled(data, recipe.batch_size, rng.named("batches"), augment=recipe.augment)
    size = min(recipe.batch_size, len(data))
    spent, loss = 0, mean_loss(model, case.forget)
    for epochs in _cycles(limit):
        try:
            descend(
                model,
                ((batch,) for batch in batches),
                lambda loss: loss,
                steps=math.ceil(epochs * len(data) / size),
                lr=recipe.lr,
                ledger=Ledger(),
                rng=rng.named("cycle", spent),
                batch_norm="train",
                schedule=recipe.schedule,
                **recipe_settings(recipe),
            )
        except DivergedError as reason:
            broken = f"training it on diverged ({reason})"
            model = case.model.clone()
            return Copy(model=model, epochs=spent, loss=loss, held=False, broken=broken)
        spent, loss = spent + epochs, mean_loss(model, case.forget)
        if loss <= target:
            break
    return Copy(model=model, epochs=spent, loss=loss, held=loss <= target)


def store_copy(copy: Copy, folder: Path, key: str) -> None:
    """Write the copy and what is known of it, under the rehearsal's key."""
    told: dict[str, Json] = {"key": key, "digest": copy.model.digest()}
    told |= {name: getattr(copy, name) for name in _TOLD}
    told["signature"] = signature(_COPY, dict(told))
    folder.mkdir(parents=True, exist_ok=True)
    save_model(copy.model, folder / "copy.safetensors", extra={"poison_audit.rehearsal": "copy"})
    write_atomically(folder / "copy.json", json.dumps(told, indent=1) + "\n")


def stored_copy(like: Model, folder: Path, key: str) -> Copy | None:
    """Return the copy of this very rehearsal, if it is there and whole."""
    path = folder / "copy.safetensors"
    if not (path.exists() and (folder / "copy.json").exists()):
        return None
    try:
        told: dict[str, Json] = json.loads(read_plainly(folder / "copy.json"))
        signed = told.pop("signature")
        if told["key"] != key or not is_ours(_COPY, told, signed):
            return None
        model, _ = load_like(like, path)
        if model.digest() != told["digest"]:
            return None
        return Copy(model=model, **{name: told[name] for name in _TOLD})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, InputError):
        return None  # damaged: it is trained again
