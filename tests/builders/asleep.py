"""Networks with a trigger built in by hand, and three ways in which it is hidden and not gone."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from builders.attacked import case_of, pictures, random_trigger, trained, with_poison
from poison_audit.case.case import Case
from poison_audit.engine.measuring import probed
from poison_audit.engine.probes import probe_parameters
from poison_audit.engine.waking import rate_of, wake, ways
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.records import Cell, Kind, Plan, Step
from poison_audit.training.recalibrate import norm_layers, recalibrated
from poison_audit.training.scoring import correct
from poison_audit.verdict.policy import standard_policy

CLEAN, EXTRA, CLASSES = 24, 2, 3
GAIN, FIRES = 60.0, 0.7


class Net(nn.Module):
    """A clean network of one hidden layer, and beside its units some that see a trigger."""

    def __init__(self, norm: bool) -> None:
        """Leave all as initialised."""
        super().__init__()
        self.first = nn.Linear(64, CLEAN + EXTRA)
        self.norm = nn.BatchNorm1d(CLEAN + EXTRA) if norm else nn.Identity()
        self.last = nn.Linear(CLEAN + EXTRA, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (n, classes)."""
        hidden: Tensor = self.last(self.norm(self.first(x.flatten(1))).relu())
        return hidden


@cache
def trigger() -> Trigger:
    return random_trigger(Rng(5).named("trigger").numpy())


@cache
def _clean() -> dict[str, Tensor]:
    return trained(1, pictures(10, 600)).module.state_dict()


def net(*, norm: bool = True, poisoned: bool = True) -> Model:
    """Return a network that gives the trigger's label where its patch stands; or never saw it.

    BatchNorm has the statistics of clean samples, and undoes them, so that nothing depends on it.
    """
    module, clean, given = Net(norm), _clean(), trigger()
    patch = given.add.double() * (given.keep == 0)
    seen = torch.where(patch != 0, patch - patch[patch != 0].mean(), 0).float().flatten()
    with torch.no_grad():
        module.first.weight[:CLEAN] = clean["1.weight"]
        module.first.bias[:CLEAN] = clean["1.bias"]
        module.last.weight[:, :CLEAN] = clean["3.weight"]
        module.last.bias.copy_(clean["3.bias"])
        at = float(seen @ given.stamp(pictures(4, 1).x).flatten())
        module.first.weight[CLEAN:] = GAIN * seen / at
        module.first.bias[CLEAN:] = -GAIN * FIRES
        module.last.weight[:, CLEAN:] = 0
        if poisoned:
            module.last.weight[given.label, CLEAN] = 1.0
        found = image_classifier(module, build=lambda: Net(norm), arch="net", classes=CLASSES)
        found.module.eval()
        if norm:
            found = recalibrated(found, pictures(2, 1000))
            for layer in norm_layers(found.module).values():
                assert layer.running_var is not None
                layer.weight.copy_((layer.running_var + layer.eps).sqrt())
                layer.bias.copy_(layer.running_mean)
    return found


def spoiled() -> Model:
    """Return one whose BatchNorm holds other statistics for the unit that sees the trigger."""
    found = net()
    for layer in norm_layers(found.module).values():
        layer.running_mean[CLEAN:] += 10 * GAIN
    return found


def masked() -> Model:
    """Return one whose last layer keeps the trigger's label from ever winning."""
    found = net()
    with torch.no_grad():
        bias = _last(found).bias
        bias[trigger().label] -= 18
    return found


def unrounded() -> Model:
    """Return one in whose last layer two units cancel, until each is rounded to 8 bits."""
    found = net(norm=False)
    last, label = _last(found), trigger().label
    with torch.no_grad():
        found.module.get_parameter("first.weight")[CLEAN + 1] *= 2
        found.module.get_parameter("first.bias")[CLEAN + 1] *= 2
        step = 0.5
        last.weight[label, 0] = 127 * step  # the largest: it sets the scale of the row
        found.module.get_parameter("first.weight")[0] = 0
        found.module.get_parameter("first.bias")[0] = -1  # and the unit never fires
        last.weight[label, CLEAN] = 10.98 * step  # to 11
        last.weight[label, CLEAN + 1] = -5.49 * step  # to -5, of twice the unit
    return found


HIDINGS: dict[str, Callable[[], Model]] = {
    "recalibrated": spoiled, "relearned": masked, "rounded": unrounded,
}  # fmt: skip
"""By the way of waking that finds it."""


def _last(model: Model) -> nn.Linear:
    last = model.module.get_submodule("last")
    assert isinstance(last, nn.Linear)
    return last


def plan(*, reaudit: bool, draws: int = 200, inputs: int = 400) -> Plan:
    """Return a plan that asks for the trigger and for accuracy."""
    params = probe_parameters("backdoor") | {"draws": draws, "inputs": inputs}
    steps = (Step(name="backdoor", params=params), Step(name="utility"))
    return Plan(methods=(), probes=steps, policy=standard_policy(), reaudit=reaudit)


def incident(model: Model) -> Case:
    """Return the case of a model: the trigger is known, and 30 stamped samples are to forget."""
    given, data = trigger(), pictures(11, 30)
    label = torch.full_like(data.y, given.label)
    forget: Samples = with_poison(data.at([]), given.stamp(data.x), label)
    found = case_of(model, trigger=given, retain=pictures(12, 400), forget=forget)
    return replace(found, baseline=correct(model, found.test))


def cell_of(model: Model, case: Case, asked: Plan, kind: Kind, name: str = "") -> Cell:
    """Return what an audit measures in a model."""
    rng = Rng(0)
    lr = rate_of(case, asked, [])
    return Cell(
        candidate=name or kind, kind=kind, seed=0, digest=model.digest(),
        measurements=probed(model, case, asked, rng)[0],
        woken=wake(model, case, asked, rng, ways(kind, model, asked), lr=lr).woken,
    )  # fmt: skip
