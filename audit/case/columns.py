"""What people call the columns of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poison_audit.errors import Problem

PICTURE = {
    "path": (
        "file_name", "filename", "file", "filepath", "file_path", "image_path", "img_path",
        "image", "img",
    ),
    "label": ("labels", "class", "class_name", "target", "targets", "category"),
    "id": (),
}  # fmt: skip
"""Of tables whose pictures are files."""


def renamed(
    header: Sequence[str], aliases: Mapping[str, Sequence[str]], where: str
) -> tuple[list[str], list[Problem]]:
    """Return a header with the names that are used here, and what is in doubt about it.

    A column that has the name already is the one that is meant. Otherwise a single one of its
    aliases is, in whatever case; between several nobody chooses.
    """
    found, problems = list(header), []
    for name, others in aliases.items():
        if name in header:
            continue
        spelt = {name.casefold(), *others}
        there = [place for place, each in enumerate(header) if each.casefold() in spelt]
        if len(there) == 1:
            found[there[0]] = name
        elif there:
            called = " and ".join(repr(header[place]) for place in there)
            what = f"the columns {called} may both be the {name}"
            problems.append(Problem(what, where, f"Rename the one that is meant to {name!r}."))
    return found, problems
