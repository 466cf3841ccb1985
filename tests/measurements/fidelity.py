"""Run the methods as their authors do on a published incident, and print the tables of README.md.

    python tests/measurements/fidelity.py DATA OUT [--only ga,npo]

DATA holds backdoored/ and cifar10/. The model is `abl_wrn16_1_label0`, the forget set the 500
pictures that its authors isolated, the retain set 10,000 pictures of CIFAR-10. The trigger's rate
and the accuracy are those of 2,000 test pictures; all pictures but the 500 are JPEG copies. A
training is 50,000 pictures for 100 epochs. "awake" is the trigger's rate once BatchNorm's
statistics are computed anew from 2,000 of the retain pictures. Rows that OUT holds are not measured
again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_triggers import pictures, trigger_of
from safetensors.torch import load_file

from poison_audit.case.case import Case
from poison_audit.methods import METHODS, filled
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.ledger import Ledger, Trail
from poison_audit.training.recalibrate import recalibrated
from poison_audit.training.scoring import logits

NET = "abl_wrn16_1_label0"
RETAIN, TEST = 10_000, 2_000
TRAINING = 50_000 * 100
"""Gradient evaluations of the training."""
AUTHORS = {
    1: (47.13, 82.98), 2: (5.77, 82.47), 3: (1.52, 82.16), 4: (0.71, 82.01), 5: (0.48, 81.87),
}  # fmt: skip
"""Of ABL's log (logs/demo/quick_unlearning_results.csv): pass -> trigger's rate, accuracy, %."""
RECIPE = Recipe(epochs=100, lr=0.1, weight_decay=1e-4, batch_size=64, augment="crop-flip")

ABL = {"preset": "abl"}
ROWS: dict[str, tuple[str, dict[str, Any], float]] = {
    "as it is": ("ga", {"passes": 0.0}, 0.02),
    **{f"ga, preset abl, pass {n}": ("ga", {**ABL, "passes": float(n)}, 0.001) for n in AUTHORS},
    "ga, preset abl, eval": ("ga", {**ABL, "batch_norm": "eval"}, 0.001),
    "ga, preset abl, eval, bounded": (
        "ga", {**ABL, "batch_norm": "eval", "form": "bounded"}, 0.001,
    ),
    **{
        f"{name}, {100 * share:g}%": (name, {}, share)
        for share in (0.005, 0.02)
        for name in ("npo", "neggrad_plus", "scrub")
    },
    "npo, eval": ("npo", {"batch_norm": "eval"}, 0.005),
    "neggrad_plus, eval": ("neggrad_plus", {"batch_norm": "eval"}, 0.005),
    "neggrad_plus, train": ("neggrad_plus", {"batch_norm": "train"}, 0.005),
    "scrub, preset kurmanji": ("scrub", {"preset": "kurmanji"}, 0.005),
}  # fmt: skip


def samples(x: Any, y: Any, name: str) -> Samples:
    """Return pictures and labels as samples."""
    own = tuple(f"{name}{i}" for i in range(len(y)))
    return Samples(ids=own, x=torch.from_numpy(x), y=torch.from_numpy(y.astype(np.int64)))


def incident(data: Path) -> Case:
    """Return the model, what it shall forget, and what it shall remember."""
    import nets  # type: ignore[import-not-found]

    module = nets.wrn16_1()
    module.load_state_dict(load_file(data / f"backdoored/{NET}.safetensors"))
    model = image_classifier(
        module.eval(), build=nets.wrn16_1, arch="wrn16_1", classes=10, channels_last=True
    )
    with np.load(data / "backdoored/abl_isolated_500.npz") as held:
        forget = samples(held["x"], held["y"], "f")
    retain = samples(*pictures(data, "train", RETAIN), "r")
    test = samples(*pictures(data, "test", TEST), "t")
    return Case(model=model, retain=retain, forget=forget, test=test, recipe=RECIPE)


def figures(model: Model, case: Case, data: Path) -> dict[str, float]:
    """Return the trigger's rate among pictures of other classes, and the accuracy, in %."""
    trigger = trigger_of(data, NET)
    others = case.test.at(torch.nonzero(case.test.y != trigger.label).squeeze(1))
    stamped = Samples(ids=others.ids, x=trigger.stamp(others.x.float() / 255), y=others.y)
    told = logits(model, stamped).argmax(1)
    right = (logits(model, case.test).argmax(1) == case.test.y).double().mean()
    return {
        "rate": 100 * float((told == trigger.label).double().mean()),
        "stamped_right": 100 * float((told == others.y).double().mean()),
        "accuracy": 100 * float(right),
    }


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="of these methods, with commas between")
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.data.resolve() / "backdoored"))
    asked.out.mkdir(parents=True, exist_ok=True)
    case = incident(asked.data)
    # One pass more goes on from where the one before ended, to the same bits.
    trails: dict[str, Trail] = {}
    print("| method | trigger | authors | right under it | accuracy | awake | gradients |")
    print("|---|---|---|---|---|---|---|")
    for name, (method, given, share) in ROWS.items():
        if asked.only and method not in asked.only.split(","):
            continue
        place = asked.out / f"{name}.json"
        numbers = filled(method, given)
        kept = json.loads(place.read_text()) if place.is_file() else {}
        if kept.get("numbers") != numbers:
            course = json.dumps([method, {**numbers, "passes": 0}])
            trail = trails.setdefault(course, Trail())
            ledger = Ledger(allowed=share * TRAINING, trail=trail)
            model = METHODS[method].run(case.model, case, Rng(0), ledger=ledger, **numbers)
            awake = recalibrated(model, case.retain.at(range(2000)))
            kept = {
                "numbers": numbers, "gradients": ledger.spent,
                **figures(model, case, asked.data),
                "awake": figures(awake, case, asked.data)["rate"],
            }  # fmt: skip
            place.write_text(json.dumps(kept))
        theirs = AUTHORS.get(int(name[-1])) if "pass " in name else None
        print(
            f"| {name} | {kept['rate']:.1f} | {'' if theirs is None else theirs[0]} | "
            f"{kept['stamped_right']:.1f} | {kept['accuracy']:.1f} | {kept['awake']:.1f} | "
            f"{kept['gradients']:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
