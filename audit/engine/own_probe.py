"""A user's own probe: found without running it, run in a process of its own, believed in little.

It is named on the command line alone, since it is run: `package.module:function`, or the name of an
installed entry point of the group `poison_audit.probes`. Its docstring has to state its null, which
is read off its source before anything is measured.

It is given a model, the case and random numbers, and gives two tables of numbers: scores, one a
sample, and beside each those of its controls (`checks.own` says what they mean). They are compared
here. What it does to the model it does in its own process, and is told of; anything but two tables
of finite numbers is a probe that failed, which keeps a model from passing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from poison_audit.case.case import Case
from poison_audit.checks.own import OWN
from poison_audit.engine.own_code import Code, find_code, takes_three, unchanged
from poison_audit.engine.own_process import apart, imported, message
from poison_audit.errors import FailedError, InputError, Problem, Problems
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.records import Json, Measurement, Plan, Step

GROUP = "poison_audit.probes"
"""Of entry points."""
SECONDS = 600.0
"""What it may take with one model, unless somebody says otherwise."""
MOST = 1 << 25
"""Bytes of its numbers: more than a million of them."""
LONGEST = 1000
"""Letters of what it says of itself."""
_WHERE = "--probe-from"
_FIX = (
    "Give package.module:function, as `def function(model, case, rng)` stands in that module, with "
    "a line `Null: ...` in its docstring."
)


def own_probes(named: Sequence[str], seconds: float = SECONDS) -> tuple[Step, ...]:
    """Return a user's probes as steps of a plan.

    Args:
        named: `package.module:function` each, or an entry point's name.
        seconds: what one may take with one model.

    Raises:
        InputError: everything that is wrong with them.
    """
    problems, found = Problems(), dict[str, Step]()
    for spec in named:
        with problems.collecting():
            code = find_code(spec, flag=_WHERE, group=GROUP, fix=_FIX)
            if code.name in found:
                what, fix = f"the name {code.name!r} is taken", "Call the function otherwise"
                raise InputError(Problem(what, code.where, fix))
            found[code.name] = _step(code, seconds)
    problems.raise_any()
    return tuple(found.values())


def _step(code: Code, seconds: float) -> Step:
    if not takes_three(code) or None in code.function.args.kw_defaults:
        what = f"{code.name} does not take what a probe is given"
        raise InputError(Problem(what, code.where, _FIX))
    told = ast.get_docstring(code.function) or ""
    asks, null = _line(told), re.search(r"^Null:\s*(\S.*?)(?:\n\s*\n|\Z)", told, re.M | re.S)
    if null is None:
        what = f"{code.name} does not say its null"
        fix = (
            "Write into its docstring `Null: ` and why scores and controls are exchangeable in a "
            "model that never saw the poison"
        )
        raise InputError(Problem(what, code.where, fix))
    params = {
        "function": code.spec, "sha256": code.digest, "asks": asks, "null": _line(null[1]),
        "seconds": seconds,
    }  # fmt: skip
    return Step(name=code.name, params=params)


def _line(text: str) -> str:
    """Return the first paragraph of a text on one line."""
    return " ".join(text.strip().split("\n\n")[0].split())[:LONGEST]


def refuse_device(plan: Plan, device: torch.device) -> None:
    """Refuse probes of a user's own where the models lie on no CPU: a fork cannot use it."""
    if plan.own and device.type != "cpu":
        what = f"runs on the CPU alone, not on {device.type}"
        raise InputError(Problem(what, _WHERE, "Add --device cpu"))


def ask_own(model: Model, case: Case, plan: Plan, rng: Rng) -> tuple[Measurement, ...]:
    """Return what every probe of a user's own sees in a model.

    Raises:
        InputError: the source of one is not what it was when the audit began.
    """
    return tuple(_asked(model, case, step, rng) for step in plan.own)


def _asked(model: Model, case: Case, step: Step, rng: Rng) -> Measurement:
    name, spec, before = f"{OWN}{step.name}", str(step.params["function"]), model.digest()
    unchanged(spec, step.params["sha256"], f"{_WHERE} {spec}")
    draws = rng.named("probe", name)
    try:
        told, _ = apart(
            lambda: _made(spec, model, case, draws), most=MOST,
            seconds=float(step.params["seconds"]), what="numbers",
        )  # fmt: skip
        if model.digest() != before:
            raise FailedError("changed the weights that it was to look at")
        return Measurement(probe=name, evidence=_compared(told))
    except FailedError as error:
        return Measurement(probe=name, evidence=None, missing=f"it {error}")


def _compared(told: dict[str, Json]) -> dict[str, Json]:
    """Return how many of its controls each score lies above.

    Raises:
        FailedError: they are no two tables of finite numbers that fit together.
    """
    scores, controls = (_table(told.get(key), key) for key in ("scores", "controls"))
    if scores.ndim != 1 or controls.ndim != 2 or len(scores) != len(controls) or not controls.size:
        shapes = f"{_shape(scores)} and {_shape(controls)}"
        raise FailedError(f"gave scores and controls of the shapes {shapes}, not (n,) and (n, k)")
    wins = (scores[:, None] > controls).sum(axis=1)
    return {"wins": [int(each) for each in wins], "draws": controls.shape[1]}


def _table(plain: Json, what: str) -> Any:
    try:
        # Nothing but numbers: of texts and of truth values numpy would make some.
        table = np.asarray(plain)
        if table.dtype.kind not in "if":
            raise ValueError(table.dtype)
        table = table.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise FailedError(f"gave {what} that are no table of numbers") from error
    if not np.isfinite(table).all():
        raise FailedError(f"gave {what} that are not finite")
    return table


def _shape(table: Any) -> str:
    return f"({', '.join(map(str, table.shape))})"


# In the child


def _made(spec: str, model: Model, case: Case, rng: Rng) -> bytes:
    before = model.digest()
    given = imported(spec)(model, case, rng)
    if model.digest() != before:
        raise FailedError("changed the weights that it was to look at")
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise FailedError(f"gave a {type(given).__name__}, not (scores, controls)")
    scores, controls = (np.asarray(torch.as_tensor(each).detach().cpu()) for each in given)
    for what, table in (("scores", scores), ("controls", controls)):
        if table.dtype.kind not in "if":
            raise FailedError(f"gave {what} that are no table of numbers")
        if not np.isfinite(table).all():
            raise FailedError(f"gave {what} that are not finite")
    return message({"scores": scores.tolist(), "controls": controls.tolist()})
