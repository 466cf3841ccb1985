"""Of wrong readings that cost too little accuracy to be seen: is a live trigger still obeyed?

    python tests/measurements/unseen_readings.py NETS --data DATA [--only PREFIX ..]

NETS is the folder that honest_nets.py filled; DATA holds cifar10/. Networks of it with a backdoor
that at least 80% of stamped test pictures obey are read in all ways that checks/adapter tries, and
at three quarters of the size. Stamped and clean pictures are read alike. Prints, for each kind of
way, how often it costs at most 5 points, which clean samples cannot tell; in how many of these the
trigger's rate falls by over 10 points; and how many of those checks/adapter doubts, since the
forget set or BatchNorm tells.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

import honest_nets
from false_alarms import trained

from poison_audit.case.case import Case
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.inputs import GAIN
from poison_audit.checks.sanity import check_sanity
from poison_audit.checks.ways import Way, prepared, ways
from poison_audit.models.fit import UnfitError, unfit
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import as_pixels
from poison_audit.models.seeds import Rng

LIVE, LOST = 0.8, 0.1
LABEL = 3
KINDS = {
    "--normalize": "another normalisation", "pixels of": "scaled", "the channels": "BGR",
    "the pictures": "upside down", "smaller": "smaller pictures", "larger": "larger pictures",
}  # fmt: skip


def rates(model: Model, way: Way, clean: Batch) -> tuple[float, float]:
    """Return the share of test pictures answered rightly, and of stamped ones that obey."""
    with way.network(model.module) as module, unfit():
        right, obeyed = (
            torch.cat([module(prepared(way, some)).argmax(1) for some in x.split(100)])
            for x in (clean.x, honest_nets.stamp(clean.x))
        )
    others = clean.y != LABEL
    return float((right == clean.y).float().mean()), float((obeyed == LABEL)[others].float().mean())


def as_floats(case: Case) -> Case:
    """Return a case whose pictures are in [0, 1]."""
    parts = {"forget": case.forget, "retain": case.retain, "test": case.test}
    told = {name: replace(part, x=as_pixels(part.x)) for name, part in parts.items()}
    return replace(case, **told)


def smaller(normalize: honest_nets.Normalize) -> Way:
    """Return three quarters of the size, as a picture that was shrunk well is."""

    def change(x: Tensor) -> Tensor:
        side = round(0.75 * x.shape[2])
        shrunk = F.interpolate(x, size=side, mode="bilinear", antialias=True)
        return shrunk.clamp(0, 1)

    return Way(said="smaller", step="", normalize=normalize, change=change)


def kind(way: Way, x: Tensor) -> str:
    """Return the kind of a way to read pictures."""
    if way.said.startswith("pictures of "):
        return KINDS["smaller" if way.change(x[:1]).shape[2] < x.shape[2] else "larger"]
    return next((name for words, name in KINDS.items() if way.said.startswith(words)), "the stem")


def doubted(case: Case, way: Way) -> bool:
    """Say whether the adapter is, or its accuracy is chance, if all is read in some way."""
    told = {
        name: replace(part, x=way.change(part.x))
        for name, part in (("forget", case.forget), ("retain", case.retain), ("test", case.test))
    }
    module = case.model.module
    model = image_classifier(
        module, build=lambda: module, arch="factory:own", classes=10, normalize=way.normalize
    )
    case = replace(case, model=model, **told)
    case, sanity = check_sanity(case, alpha=0.05)
    return not sanity.works or bool(doubts_of_adapter(case, sanity, alpha=0.05, rng=Rng(0)))


def main() -> int:
    """Ask, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["small", "fresh"])
    given = parser.parse_args()
    cifar = honest_nets.pictures(given.data / "cifar10", given.nets)
    found: dict[str, list[tuple[float, bool]]] = {}
    live = 0
    for kept in sorted(file for only in given.only for file in given.nets.glob(f"{only}*.pt")):
        recipe = honest_nets.Recipe(**torch.load(kept, weights_only=True)["recipe"])
        if recipe.poison != "backdoor":
            continue
        _, case = trained(kept, cifar)
        few, model = case.test.batch(slice(0, 300)), case.model
        stated = Way(said="", step="", normalize=model.normalize or ((0.0,), (1.0,)))
        with torch.no_grad():
            right, obeyed = rates(model, stated, few)
            if obeyed < LIVE:
                continue
            live += 1
            for way in (*ways(model, few.x), smaller(stated.normalize)):
                name = KINDS["smaller"] if way.said == "smaller" else kind(way, few.x)
                try:
                    clean, stamped = rates(model, way, few)
                except UnfitError:
                    continue
                if clean >= right - GAIN:
                    lost = obeyed - stamped
                    told = lost > LOST and doubted(as_floats(case), way)
                    found.setdefault(name, []).append((lost, told))
        print(kept.stem, f"{right:.0%} right, {obeyed:.0%} obey", file=sys.stderr, flush=True)
    print(f"{live} networks whose trigger is obeyed.\n")
    print("| reading | costs at most 5 points | trigger falls by over 10 | doubted of those |")
    print("|---" * 4 + "|")
    for name, some in found.items():
        falls, seen = sum(lost > LOST for lost, _ in some), sum(told for _, told in some)
        print(f"| {name} | {len(some)} | {falls} | {seen} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
