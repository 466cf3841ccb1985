"""A Python call's arguments -> the values that the command line would give: one path for both.

Every value goes through the form that its flag has (`fields.Kind`), so that what is refused, and
the words for it, are the same.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from poison_audit.commands import own_settings as own
from poison_audit.commands import settings
from poison_audit.commands.fields import SWITCH, Field, fields_of
from poison_audit.errors import InputError, Problem, Problems, did_you_mean, some

DECLARED: dict[str, Field] = {
    **{
        name: field
        for part in (
            settings.Architecture, settings.Texts, settings.Subject, settings.Expecting,
            settings.Judged, settings.Deciding, settings.Trained, settings.Methods, own.Numbers,
            own.Running, own.OwnMethods, own.OwnProbes, own.Output,
        )
        for name, field in fields_of(part).items()
    },
    **settings.EVIDENCE,
}  # fmt: skip
"""What `check` can be told, by name."""
Said = Mapping[str, Any]


def given_of(said: Said, declared: Mapping[str, Field] = DECLARED) -> dict[str, Any]:
    """Return the command line's values of what a call says; None: it does not say.

    Args:
        said: by the name of the field.
        declared: what can be said.

    Raises:
        InputError: everything whose form is wrong.
    """
    problems, given = Problems(), dict[str, Any].fromkeys(declared)
    for name, value in said.items():
        if value is None:
            continue
        try:
            given[name] = _read(declared[name], value)
        except ValueError as error:
            problems.append(Problem(str(error), name))
    problems.raise_any()
    return given


def _read(declared: Field, value: Any) -> Any:
    if declared.kind is SWITCH:
        return bool(value) or None
    if isinstance(value, Mapping):
        return _pairs(value) or None
    if not declared.several:
        joined = isinstance(value, Iterable) and not isinstance(value, str | Path)
        return declared.kind.parse(",".join(map(str, value)) if joined else str(value))
    parts = [value] if isinstance(value, str | Path) else value
    values = [declared.kind.parse(str(part)) for part in parts]
    if declared.kind.joined:
        values = list(dict.fromkeys(name for names in values for name in names))
    return tuple(values) or None


def _pairs(value: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return KEY=VALUE of a mapping; of a mapping of mappings, NAME.KEY=VALUE."""
    found = []
    for name, each in value.items():
        if isinstance(each, Mapping):
            found += [(f"{name}.{key}", str(number)) for key, number in each.items()]
        else:
            found.append((str(name), str(each)))
    return tuple(found)


_FLAG = re.compile(
    r"--([a-z][a-z-]*)(?:[ =](?:(\w+)=([\w.]+)|([A-Z]+\b|[\w/]+\.(?:json|csv|npz))))?"
)
"""A flag as messages name it, and what stands behind it: KEY=VALUE, a word for it, or a file."""
_COMMAND = re.compile(r"`poison-audit (probe|unlearn|repair|plant)`")
"""A command that is a function of the same name."""
_NAMES = {declared.flag.removeprefix("--"): name for name, declared in DECLARED.items()}
_CALLED = {"reference": "references", "candidate": "candidates", "tolerance": "tolerances"}
"""Arguments that are called otherwise than their flags, which are given several times."""


def as_argument(problem: Problem, known: Container[str]) -> Problem:
    """Return a problem that names the arguments of a call, as far as it has any, and no flags.

    Args:
        problem: in the words of the command line.
        known: what the call can be told, by the names of the flags' fields.

    >>> wrong = Problem("must be below 1, got 2", "--alpha", "Or --recipe epochs=N, or --quiet")
    >>> print(as_argument(wrong, ["alpha", "recipe"]))
    alpha: must be below 1, got 2. Or recipe={"epochs": N}, or --quiet.
    >>> print(as_argument(Problem("no epochs", fix="`poison-audit probe` needs none"), []))
    no epochs. pa.probe needs none.
    """

    def argument(found: re.Match[str]) -> str:
        flag, key, value, word = found.groups()
        name = _NAMES.get(flag, "")
        if name in settings.EVIDENCE:
            return f'evidence={{"{name}": {word or "..."}}}'
        if name not in known:
            return found[0]
        name = _CALLED.get(name, name)
        return f'{name}={{"{key}": {value}}}' if key else f"{name}={word or ''}"

    def place(found: re.Match[str]) -> str:
        name = _NAMES.get(found[1], "")
        return _CALLED.get(name, name) if name in known else found[0]

    where = re.sub(r"^--([a-z-]+)", place, problem.where)
    parts = (_COMMAND.sub(r"pa.\1", text) for text in (problem.what, problem.fix))
    what, fix = (_FLAG.sub(argument, text) for text in parts)
    return Problem(what, where, fix)


def evidence_of(given: Any) -> dict[str, Any]:
    """Return evidence by the name of its flag, such as `canaries`.

    Args:
        given: files by that name; or files alone that are called as `plant` calls them, such as
            canaries.json.

    Raises:
        InputError: it cannot be told what one of them is.
    """
    known = settings.EVIDENCE
    if isinstance(given, Mapping):
        wrong = [str(name) for name in given if name not in known]
        found = dict(given)
    else:
        files = [given] if isinstance(given, str | Path) else list(given or ())
        found = {Path(file).stem: Path(file) for file in files}
        wrong = [str(Path(file)) for file in files if Path(file).stem not in known]
        if len(found) < len(files):
            wrong = [*wrong, *map(str, files)]
    if wrong:
        what = f"cannot tell what {some(wrong)} is"
        hint = did_you_mean(Path(wrong[0]).stem, known)
        fix = f'Give evidence={{"canaries": "a.json"}}, say, by name. {hint}'
        raise InputError(Problem(what, "evidence", fix))
    return found
