"""Search the numbers that methods have by default, on data that no table of README.md is about.

    python tests/measurements/defaults.py OUT --cifar10 FOLDER [--trials 20] [--method NAME ..]

FOLDER holds cifar10-full.npz and load_cifar10.py. Three models with 200 Gaussian canaries each:

    wide     1,200 pictures of CIFAR-10, ResNet of width 16, 15 epochs, one-cycle
    narrow   1,200 others, ResNet of width 8, 30 epochs at a constant rate
    reviews  1,200 made-up reviews (fixtures/reviews_text.py), a tenth of them labelled otherwise
             than they read, 400 canaries, a GPT-2 of two layers, 25 epochs of AdamW

None of their pictures and reviews, test samples included, stands in a table of README.md. Every
method is tried on all three with the same numbers (rates in multiples of the recipe's), first with
its defaults, then with what Optuna's TPE proposes from the method's declared ranges. A trial's
score is that of `check --tune`: residue or accuracy lost, whichever is worse, in tolerances; here
its mean over the three models. A default is changed if the best trial's mean is at least a tenth
below that of the present defaults, and so is that of its rounded numbers (rates and the like to 1,
2, 3, 5 or 7 times a power of ten) on three models more, of other pictures, reviews and seeds: the
best of many trials is partly luck. And since canaries are not all poison, the numbers may not leave
a backdoor more alive, planted in two ResNets of the same kinds: its success rate, the mean of both,
may be at most 5 points higher with them. The noise that is planted is new each time, so figures
differ a little from run to run.

Prints a table, and writes every trial to OUT/trials.json and OUT/confirmed.json; a method that
stands there is not tried again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2] / "fixtures")]

import cifar10
from attacks import run
from make_reviews import LENGTH, write_base, write_table
from reviews_text import reviews

from poison_audit.case.case import Case
from poison_audit.case.load import load_trial
from poison_audit.case.sources import Sources
from poison_audit.case.tuning import Attempt
from poison_audit.checks.sanity import check_sanity
from poison_audit.commands.config import make_recipe, read_config
from poison_audit.engine import unlearning
from poison_audit.engine.plan import make_plan
from poison_audit.engine.probes import PROBES
from poison_audit.engine.tuning import attempt, load_optuna
from poison_audit.methods import METHODS, UNLEARNING, parameters
from poison_audit.models.reader import Reading
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import READERS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Plan, Step
from poison_audit.verdict.policy import make_policy

SAMPLES, TESTED, CANARIES = 1200, 1000, 200
STEPS = (1, 2, 3, 5, 7, 10)
"""What the leading digits of a default may be."""
RECIPES: dict[str, dict[str, object]] = {
    "wide": {"epochs": 15, "lr": 0.1, "batch_size": 100, "momentum": 0.9, "weight_decay": 5e-4,
             "schedule": "onecycle"},
    "narrow": {"epochs": 30, "lr": 0.05, "batch_size": 64, "momentum": 0.9, "weight_decay": 5e-4,
               "schedule": "constant"},
    "reviews": {"epochs": 25, "optimizer": "adamw", "lr": 0.004, "batch_size": 64,
                "weight_decay": 0.01, "schedule": "onecycle"},
}  # fmt: skip
ARCHES = {"wide": "cifar-resnet:1-1-1-1:w16", "narrow": "cifar-resnet:1-1-1:w8"}


def unused_pictures(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return training pictures that neither cifar10.py nor attacks.py uses, in random order."""
    x, y = cifar10.load(source, "train")
    used = set(Rng(2406).named("train").numpy().permutation(len(y))[: cifar10.TRAIN].tolist())
    used |= set(np.random.default_rng(2406).permutation(len(y))[:2000].tolist())
    order = np.random.default_rng(1).permutation(len(y))
    chosen = np.array([place for place in order if place not in used])
    return x[chosen], y[chosen]


def write_tables(out: Path, source: Path, number: int) -> None:
    """Write clean tables for three models: those of the search (0), or of its confirmation (1)."""
    out.mkdir(parents=True, exist_ok=True)
    x, y = unused_pictures(source)
    start = number * 2 * (SAMPLES + TESTED)
    for name in ("wide", "narrow"):
        for split, size in (("train", SAMPLES), ("test", TESTED)):
            part = slice(start, start + size)
            ids = [f"{name}-{split}-{i}" for i in range(size)]
            np.savez(out / f"{name}-{split}.npz", x=x[part], y=y[part], id=ids)
            start += size
    rng = Rng(1 + number)  # the fixture's texts have another seed
    texts, labels = reviews(rng.named("texts").numpy(), SAMPLES + TESTED, fair=0.85, disputed=0.0)
    disputed = rng.named("disputed").numpy().random(SAMPLES) < 0.1
    said = [1 - y if flip else y for y, flip in zip(labels, disputed, strict=False)]
    write_base(out / "gpt2", texts[:SAMPLES])
    write_table(out / "reviews-train.csv", "train", texts[:SAMPLES], said)
    write_table(out / "reviews-test.csv", "test", texts[SAMPLES:], labels[SAMPLES:])


def make(name: str, out: Path, seed: int, attack: str = "gaussian") -> Case:
    """Plant canaries, or a backdoor, train, and return the case."""
    texts = name == "reviews"
    kind = "csv" if texts else "npz"
    folder = out / (name if attack == "gaussian" else f"{name}-{attack}")
    test = ["--test", out / f"{name}-test.{kind}"]
    reading = Reading()
    planting, made = ["--count", CANARIES], ["--normalize", "cifar10", "--arch", ARCHES.get(name)]
    if texts:
        start = out / "gpt2"
        planting = ["--count", 2 * CANARIES, "--model", start, "--max-tokens", LENGTH,
                    "--sigma", 0.1]  # fmt: skip
        made = ["--start", start, "--max-tokens", LENGTH]
        reading = Reading(max_tokens=LENGTH)  # its weights were new
    if attack == "backdoor":
        planting = ["--label", 0, "--budget", 0.05]
    if not (folder / "forget.csv").exists():
        run("plant", out / f"{name}-train.{kind}", "--attack", attack,
            "--seed", seed, *planting, *test, "-o", folder)  # fmt: skip
    model = folder / ("model" if texts else "model.safetensors")
    recipe = [f"--recipe={key}={value}" for key, value in RECIPES[name].items()]
    if not model.exists():
        run("train", folder / f"train.{kind}", "-o", model, *made, *test, *recipe, "-q",
            "--seed", seed)  # fmt: skip
    config = read_config(folder / "audit.toml")
    sources = Sources(
        model=model, forget=folder / "forget.csv", train=config.get("data", "train"),
        test=config.get("data", "test"), reading=reading,
        evidence={
            file.name: path
            for poison in POISONS.values()
            for file in poison.files
            if (path := config.get(poison.table, file.name)) is not None
        },
        normalize=None if texts else "cifar10",
        arch=ARCHES.get(name), allow_pickle=False,
    )  # fmt: skip
    trial = load_trial(
        sources, recipe=make_recipe(config, ()), device="cpu", poisons=POISONS, readers=READERS
    )
    case, _ = check_sanity(trial.case, alpha=0.05)
    return case


def with_rates(case: Case, name: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's numbers, with rates in place of multiples of the recipe's."""
    params = parameters(name) | numbers
    for number, search in METHODS[name].search.items():
        if search.scale == "rate" and params[number] is not None:
            params[number] *= case.recipe.lr
    return params


def scored(cases: Mapping[str, Case], plan: Plan, name: str, numbers: Mapping[str, Any]) -> Any:
    """Return the mean score over the cases, None if there is none, and what each gave."""
    seen: dict[str, Attempt] = {}
    for key, case in cases.items():
        step = Step(name=name, params=with_rates(case, name, numbers))
        seen[key], _ = attempt(case, step, plan)
    scores = [one.score for one in seen.values()]
    told = {k: {"residue": a.residue, "lost": a.lost, "error": a.error} for k, a in seen.items()}
    mean = None if None in scores else sum(s for s in scores if s is not None) / len(scores)
    return mean, told


def alive(case: Case, plan: Plan, name: str, numbers: Mapping[str, Any]) -> float:
    """Return how often a trigger causes its label after a method; 1 if the method failed."""
    step = Step(name=name, params=with_rates(case, name, numbers))
    model = unlearning.unlearn(case, step, Rng(0).named(name, 0), budget=plan.budget).model
    if model is None:
        return 1.0
    seen = PROBES["backdoor"](model, case, Rng(0).named("backdoor"), inputs=400, draws=19)
    if seen.evidence is None:
        raise SystemExit(f"the trigger was not measured: {seen.missing}")
    hits: Any = seen.evidence["hits"]
    return sum(hits) / len(hits)


def searched(cases: Mapping[str, Case], plan: Plan, name: str, trials: int) -> list[dict[str, Any]]:
    """Return every trial of a method, the defaults first."""
    optuna = load_optuna()
    seed = Rng(0).named("defaults", name).seed() % 2**32
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    score, told = scored(cases, plan, name, {})
    found: list[dict[str, Any]] = [{"numbers": {}, "score": score, "models": told}]
    for _ in range(trials - 1):
        trial = study.ask()
        numbers: dict[str, float] = {}
        for key, search in METHODS[name].search.items():
            if search.scale in ("whole", "blocks"):
                blocks = min(len(case.model.blocks) for case in cases.values())
                most = min(search.high, blocks if search.scale == "blocks" else search.high)
                numbers[key] = trial.suggest_int(key, search.low, most)
            else:
                log = search.scale != "linear"
                numbers[key] = trial.suggest_float(key, search.low, search.high, log=log)
        score, told = scored(cases, plan, name, numbers)
        if score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, score)
        found.append({"numbers": numbers, "score": score, "models": told})
        print(name, len(found), score, numbers, file=sys.stderr, flush=True)
    return found


def rounded(value: float) -> float:
    """Return the nearest of 1, 2, 3, 5, 7 times a power of ten, by ratio."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * min(STEPS, key=lambda step: abs(math.log(value / power / step)))


def winner(name: str, found: list[dict[str, Any]]) -> dict[str, float]:
    """Return the rounded numbers of the best trial; none if the defaults are about as good."""
    best = min((one for one in found if one["score"] is not None), key=lambda one: one["score"])
    if found[0]["score"] is not None and best["score"] > 0.9 * found[0]["score"]:
        return {}
    rounding = {"whole": int, "blocks": int, "linear": lambda value: round(value, 2)}
    return {
        key: rounding.get(METHODS[name].search[key].scale, rounded)(value)
        for key, value in best["numbers"].items()
    }


def table(trials: Mapping[str, list[dict[str, Any]]], confirmed: Mapping[str, Any]) -> str:
    """Return what was found, a row a method."""
    lines = [
        "| method | defaults | best trial | its numbers | again: defaults | those "
        "| trigger: defaults | those |"
    ]
    lines.append("|---" * 8 + "|")
    for name in (name for name in UNLEARNING if name in trials):
        found = trials[name]
        scores = [one["score"] for one in found]
        told = [scores[0], min(score for score in scores if score is not None)]
        again = confirmed.get(name, {})
        told += [again.get("defaults"), again.get("numbers")]
        one, two, three, four = ("" if score is None else f"{score:.2f}" for score in told)
        numbers = ", ".join(f"{key} {value:g}" for key, value in winner(name, found).items())
        rates = " | ".join(f"{rate:.1%}" for rate in again.get("trigger", ())) or " | "
        lines.append(
            f"| {name} | {one} | {two} | {numbers or 'kept'} | {three} | {four} | {rates} |"
        )
    return "\n".join(lines)


def kept(path: Path) -> dict[str, Any]:
    """Return what an earlier run wrote, or nothing."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def main() -> None:
    """Make the models, search, confirm, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--method", action="append", choices=UNLEARNING)
    given = parser.parse_args()
    plan = make_plan(policy=make_policy(tolerances={}))

    def cases(number: int) -> dict[str, Case]:
        folder = given.out / ("search", "confirmation")[number]
        if not (folder / "reviews-test.csv").exists():
            write_tables(folder, given.cifar10, number)
        return {name: make(name, folder, number) for name in RECIPES}

    trials, confirmed = (kept(given.out / f"{name}.json") for name in ("trials", "confirmed"))
    names = given.method or UNLEARNING
    if missing := [name for name in names if name not in trials]:
        models = cases(0)
        for name in missing:
            trials[name] = searched(models, plan, name, given.trials)
            (given.out / "trials.json").write_text(json.dumps(trials, indent=1), "utf-8")
    if missing := [n for n in names if n not in confirmed and winner(n, trials[n])]:
        models = cases(1)
        for name in missing:
            defaults, first = scored(models, plan, name, {})
            numbers, second = scored(models, plan, name, winner(name, trials[name]))
            confirmed[name] = {
                "defaults": defaults, "numbers": numbers, "models": [first, second],
            }  # fmt: skip
            if numbers is not None and numbers <= 0.9 * (defaults or math.inf):
                stamped = [make(key, given.out / "confirmation", 1, "backdoor") for key in ARCHES]
                confirmed[name]["trigger"] = [
                    sum(alive(case, plan, name, chosen) for case in stamped) / len(stamped)
                    for chosen in ({}, winner(name, trials[name]))
                ]
            (given.out / "confirmed.json").write_text(json.dumps(confirmed, indent=1), "utf-8")
    print(table(trials, confirmed))


if __name__ == "__main__":
    main()
