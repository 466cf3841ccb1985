"""A user's own method: found without running it, run in a process of its own, believed in nothing.

It is named on the command line alone, since it runs code: `package.module:function`, or the name
of an installed entry point of the group `poison_audit.methods`. What it takes is read off its
source.
It is imported and run in a child process (`own_process`), which gives back tensors and no objects:
what it does there to modules, probes or the exit code is not done here.

It runs with your rights all the same. Nothing keeps it from your files.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from poison_audit.case.case import Case
from poison_audit.engine.own_code import Code, find_code, takes_three, unchanged
from poison_audit.engine.own_process import run_apart
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.methods import METHODS
from poison_audit.methods.method import Method
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.training.ledger import Ledger

GROUP = "poison_audit.methods"
"""Of entry points."""
SECONDS = 3600.0
"""What a run may take, unless somebody says otherwise."""
_WHERE = "--method-from"
_FIX = (
    "Give package.module:function, as `def function(model, case, rng, *, ledger, ..)` stands in "
    "that module."
)


@contextmanager
def own_methods(named: Sequence[str], seconds: float = SECONDS) -> Iterator[tuple[str, ...]]:
    """Put a user's methods into the table for as long as the context lasts; give their names.

    Args:
        named: `package.module:function` each, or an entry point's name.
        seconds: what one run may take.

    Raises:
        InputError: everything that is wrong with them.
    """
    problems, found = Problems(), dict[str, Method]()
    for spec in named:
        with problems.collecting():
            name, method = _method(spec, seconds)
            if name in METHODS or name in found:
                fix = "Call the function otherwise"
                raise InputError(Problem(f"the name {name!r} is taken", f"{_WHERE} {spec}", fix))
            found[name] = method
    problems.raise_any()
    METHODS.update(found)
    try:
        yield tuple(found)
    finally:
        for name in found:
            del METHODS[name]


def _method(spec: str, seconds: float) -> tuple[str, Method]:
    code = find_code(spec, flag=_WHERE, group=GROUP, fix=_FIX)
    numbers = _numbers(code)
    run = partial(_run, code.spec, seconds)
    told: dict[str, Any] = {"function": code.spec, "sha256": code.digest}
    run.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        *(inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD)
          for key in ("model", "case", "rng")),
        inspect.Parameter("ledger", inspect.Parameter.KEYWORD_ONLY),
        *(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value,
                            annotation=Literal[value]) for key, value in told.items()),
        *(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value,
                            annotation=type(value)) for key, value in numbers.items()),
    ])  # fmt: skip
    return code.name, Method(
        run=run,
        title="Your own method",
        source=f"{code.file}, SHA-256 {code.digest}",
        needs=frozenset({"retain", "forget"}),
        ranges=dict.fromkeys(numbers, (None, None)),
        anew=True,
        unfit=_unfit,
    )


def _unfit(case: Case) -> str | None:
    kind = case.model.device.type
    return None if kind == "cpu" else f"is your own, which runs on the CPU alone, not on {kind}"


def _run(
    spec: str, seconds: float, model: Model, case: Case, rng: Rng, *,
    ledger: Ledger, function: str, sha256: str, **numbers: Any,
) -> Model:  # fmt: skip
    unchanged(spec, sha256, f"{_WHERE} {function}")
    return run_apart(spec, model, case, rng, ledger=ledger, seconds=seconds, numbers=numbers)


def _numbers(code: Code) -> dict[str, int | float]:
    """Return the numbers that a function takes by keyword, with their defaults; or InputError."""
    told, name = code.function.args, code.name
    keywords = dict(zip((each.arg for each in told.kwonlyargs), told.kw_defaults, strict=True))
    if not takes_three(code) or "ledger" not in keywords:
        raise InputError(Problem(f"{name} does not take what a method is given", code.where, _FIX))
    numbers: dict[str, int | float] = {}
    for key, default in keywords.items():
        if key == "ledger":
            continue
        if default is None:
            what = f"{name} needs {key!r}, which has no default"
            raise InputError(Problem(what, code.where, "Give each number a default"))
        try:
            value = ast.literal_eval(default)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        # What is no number keeps its default.
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers[key] = value
    return numbers
