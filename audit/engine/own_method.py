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
import hashlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from poison_audit.case.case import Case
from poison_audit.engine.own_process import FORKS, run_apart
from poison_audit.errors import InputError, Problem, Problems, did_you_mean
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
    where = f"{_WHERE} {spec}"
    if not FORKS:
        raise InputError(Problem("needs to fork a process, which this system cannot", where))
    if ":" not in spec:
        points = {point.name: point.value for point in entry_points(group=GROUP)}
        if spec not in points:
            hint = did_you_mean(spec, points) if points else _FIX
            raise InputError(Problem(f"no entry point of {GROUP} is named so", where, hint))
        spec = points[spec]
    module, _, name = spec.partition(":")
    file = _file_of(module)
    if file is None or not name.isidentifier():
        raise InputError(Problem(f"no file of a module {module!r} is found", where, _FIX))
    digest, numbers = _digest(file, module), _numbers(file, name, where)
    run = partial(_run, spec, file, seconds)
    told: dict[str, Any] = {"function": spec, "sha256": digest}
    run.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        *(inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD)
          for key in ("model", "case", "rng")),
        inspect.Parameter("ledger", inspect.Parameter.KEYWORD_ONLY),
        *(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value,
                            annotation=Literal[value]) for key, value in told.items()),
        *(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value,
                            annotation=type(value)) for key, value in numbers.items()),
    ])  # fmt: skip
    return name, Method(
        run=run,
        title="Your own method",
        source=f"{file}, SHA-256 {digest}",
        needs=frozenset({"retain", "forget"}),
        ranges=dict.fromkeys(numbers, (None, None)),
        anew=True,
        unfit=_unfit,
    )


def _unfit(case: Case) -> str | None:
    kind = case.model.device.type
    return None if kind == "cpu" else f"is your own, which runs on the CPU alone, not on {kind}"


def _run(
    spec: str, file: Path, seconds: float, model: Model, case: Case, rng: Rng, *,
    ledger: Ledger, function: str, sha256: str, **numbers: Any,
) -> Model:  # fmt: skip
    if _digest(file, spec.partition(":")[0]) != sha256:
        what = "its source is not what it was when the audit began"
        raise InputError(Problem(what, f"{_WHERE} {function}", "Leave it alone meanwhile"))
    return run_apart(spec, model, case, rng, ledger=ledger, seconds=seconds, numbers=numbers)


def _file_of(module: str) -> Path | None:
    """Return a module's file, found as Python finds it, the current directory first.

    Nothing is imported: a package that were would run here.
    """
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for folder in (Path.cwd(), *(Path(path) for path in sys.path if path)):
        place = folder.joinpath(*parts)
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return file.absolute()
    return None


def _digest(file: Path, module: str) -> str:
    """Return the SHA-256 of a module's file, or of all source of the package that it is in."""
    depth = module.count(".") + (file.name == "__init__.py")
    files = [file]
    if depth > 0:
        files = sorted(file.parents[depth - 1].rglob("*.py"))
    digest = hashlib.sha256()
    for each in files:
        name = each.relative_to(file.parents[max(0, depth - 1)]).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(each.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _numbers(file: Path, name: str, where: str) -> dict[str, int | float]:
    """Return the numbers that a function takes by keyword, with their defaults; or InputError."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise InputError(Problem(f"{file} is not Python ({error})", where)) from error
    functions = {part.name: part for part in tree.body if isinstance(part, ast.FunctionDef)}
    if name not in functions:
        hint = did_you_mean(name, functions) if functions else _FIX
        raise InputError(Problem(f"{file} defines no function {name!r}", where, hint))
    told = functions[name].args
    keywords = dict(zip((each.arg for each in told.kwonlyargs), told.kw_defaults, strict=True))
    free = len(told.posonlyargs) + len(told.args) - len(told.defaults)
    if not (free <= 3 <= free + len(told.defaults) or told.vararg) or "ledger" not in keywords:
        raise InputError(Problem(f"{name} does not take what a method is given", where, _FIX))
    numbers: dict[str, int | float] = {}
    for key, default in keywords.items():
        if key == "ledger":
            continue
        if default is None:
            what = f"{name} needs {key!r}, which has no default"
            raise InputError(Problem(what, where, "Give each number a default"))
        try:
            value = ast.literal_eval(default)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        # What is no number keeps its default.
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers[key] = value
    return numbers
