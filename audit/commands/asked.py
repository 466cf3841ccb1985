"""A Python call's arguments -> the values that the command line would give: one path for both.

Every value goes through the form that its flag has (`fields.Kind`), so that what is refused, and
the words for it, are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
