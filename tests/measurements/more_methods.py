"""Run I-BAU and potion on other people's poisoned networks, and print the table of README.md.

    python tests/measurements/more_methods.py DATA OUT [--only i_bau]

DATA holds backdoored/ and cifar10/. Of CIFAR-10, 10,000 pictures are the retain set and 2,000 the
test set, all JPEG copies; the forget set is 500 further pictures with the trigger, under its label.
A training is 50,000 pictures for 100 epochs. Rows that OUT holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from fidelity import RECIPE, TRAINING, samples
from published_triggers import NETS, pictures, trigger_of
from safetensors.torch import load_file

from poison_audit.case.case import Case
from poison_audit.methods import METHODS, filled
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger
from poison_audit.training.recalibrate import recalibrated
from poison_audit.training.scoring import logits

RETAIN, FORGET, TEST, AWAKE = 10_000, 500, 2_000, 2_000
ONE: dict[str, Any] = {"rounds": 1}
ROWS: list[tuple[str, str, dict[str, Any], float, str]] = [
    ("ibau_badnets_label8", "potion", {}, 0.02, ""),
    ("ibau_badnets_label8", "i_bau", ONE, 0.02, "9.4%, 84.9 to 83.1%"),
    ("abl_wrn16_1_label0", "potion", {}, 0.02, ""),
    ("ibau_l0_inv_label0", "i_bau", ONE, 0.02, ""),
    ("ibau_badnets_label8", "i_bau", {"rounds": 3}, 0.1, ""),
]
"""Network, method, its numbers, budget, what the authors' log says of the trigger and accuracy."""


def incident(data: Path, name: str) -> Case:
    """Return a network, what it shall forget, and what it shall remember."""
    import nets  # type: ignore[import-not-found]

    build = getattr(nets, NETS[name][0])
    module = build()
    module.load_state_dict(load_file(data / f"backdoored/{name}.safetensors"))
    model = image_classifier(module.eval(), build=build, arch=NETS[name][0], classes=10)
    x, y = pictures(data, "train", RETAIN + FORGET)
    retain, rest = samples(x[:RETAIN], y[:RETAIN], "r"), samples(x[RETAIN:], y[RETAIN:], "f")
    trigger = trigger_of(data, name)
    forget = Samples(
        ids=rest.ids,
        x=trigger.stamp(rest.x.float() / 255),
        y=torch.full_like(rest.y, trigger.label),
    )
    test = samples(*pictures(data, "test", TEST), "t")
    return Case(model=model, retain=retain, forget=forget, test=test, recipe=RECIPE)


def figures(model: Model, case: Case, data: Path, name: str) -> dict[str, float]:
    """Return the trigger's rate among pictures of other classes, and the accuracy, in %."""
    trigger = trigger_of(data, name)
    others = case.test.at(torch.nonzero(case.test.y != trigger.label).squeeze(1))
    stamped = Samples(ids=others.ids, x=trigger.stamp(others.x.float() / 255), y=others.y)
    told = logits(model, stamped).argmax(1)
    right = logits(model, case.test).argmax(1) == case.test.y
    return {
        "rate": 100 * float((told == trigger.label).double().mean()),
        "stamped_right": 100 * float((told == others.y).double().mean()),
        "accuracy": 100 * float(right.double().mean()),
    }


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="this method")
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.data.resolve() / "backdoored"))
    asked.out.mkdir(parents=True, exist_ok=True)
    print(
        "| network | method | trigger | right under it | accuracy | authors | awake | gradients |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, method, given, share, theirs in ROWS:
        if asked.only not in ("", method):
            continue
        told = "-".join([name, method, *(f"{key}{value}" for key, value in given.items())])
        place = asked.out / f"{told}.json"
        if not place.is_file():
            case, ledger = incident(asked.data, name), Ledger(allowed=share * TRAINING)
            numbers = filled(method, given)
            model = METHODS[method].run(case.model, case, Rng(0), ledger=ledger, **numbers)
            before = figures(case.model, case, asked.data, name)
            after = figures(model, case, asked.data, name)
            awake = recalibrated(model, case.retain.at(range(AWAKE)))
            known: dict[str, Any] = {"before": before, "after": after, "spent": ledger.spent}
            known["awake"] = figures(awake, case, asked.data, name)
            place.write_text(json.dumps(known))
        kept = json.loads(place.read_text())
        rate, right, accuracy = (
            f"{kept['before'][key]:.1f} -> {kept['after'][key]:.1f}"
            for key in ("rate", "stamped_right", "accuracy")
        )
        numbers_told = ", ".join(f"{key} {value}" for key, value in given.items())
        print(
            f"| {name} | {method} {numbers_told} | {rate} | {right} | {accuracy} | {theirs} | "
            f"{kept['awake']['rate']:.1f} | "
            f"{kept['spent']:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
