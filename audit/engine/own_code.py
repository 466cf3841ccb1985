"""Code of a user's own: found, read and digested without running any of it.

It is named on the command line alone, since it is run: `package.module:function`, or the name of an
installed entry point. Everything about it is read off its source.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from poison_audit.engine.own_process import FORKS
from poison_audit.errors import InputError, Problem, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A function that somebody named."""

    spec: str
    """`package.module:function`."""
    name: str
    """The function's."""
    file: Path
    digest: str
    """SHA-256 of its file, or of all source of the package that it is in."""
    function: ast.FunctionDef
    where: str
    """What named it, for messages."""


def find_code(spec: str, *, flag: str, group: str, fix: str) -> Code:
    """Return the function that is named.

    Args:
        spec: `package.module:function`, or an entry point's name.
        flag: what named it.
        group: of entry points.
        fix: what to give instead, in messages.

    Raises:
        InputError: there is none, or no process of its own can be made for it.
    """
    where = f"{flag} {spec}"
    if not FORKS:
        raise InputError(Problem("needs to fork a process, which this system cannot", where))
    if ":" not in spec:
        points = {point.name: point.value for point in entry_points(group=group)}
        if spec not in points:
            hint = did_you_mean(spec, points) if points else fix
            raise InputError(Problem(f"no entry point of {group} is named so", where, hint))
        spec = points[spec]
    module, _, name = spec.partition(":")
    file = _file_of(module)
    if file is None or not name.isidentifier():
        raise InputError(Problem(f"no file of a module {module!r} is found", where, fix))
    function = _function(file, name, where, fix)
    return Code(spec=spec, name=name, file=file, digest=_digest(file, module), function=function,
                where=where)  # fmt: skip


def unchanged(spec: str, digest: object, where: str) -> None:
    """Refuse source that is not what it was when it was found, by InputError."""
    module = spec.partition(":")[0]
    file = _file_of(module)
    if file is None or _digest(file, module) != digest:
        what = "its source is not what it was when the audit began"
        raise InputError(Problem(what, where, "Leave it alone meanwhile"))


def takes_three(code: Code) -> bool:
    """Return whether a function can be given three things by place."""
    told = code.function.args
    free = len(told.posonlyargs) + len(told.args) - len(told.defaults)
    return free <= 3 <= free + len(told.defaults) or told.vararg is not None


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


def _function(file: Path, name: str, where: str, fix: str) -> ast.FunctionDef:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise InputError(Problem(f"{file} is not Python ({error})", where)) from error
    functions = {part.name: part for part in tree.body if isinstance(part, ast.FunctionDef)}
    if name not in functions:
        hint = did_you_mean(name, functions) if functions else fix
        raise InputError(Problem(f"{file} defines no function {name!r}", where, hint))
    return functions[name]
