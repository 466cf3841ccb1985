"""Every exception a user of this package can meet.

AuditError
├── InputError(problems)   files or flags that cannot be audited, all problems at once; exit code 2
├── PlanError(problems)    a plan that names something unknown or impossible; exit code 2
├── DivergedError          a method whose loss or weights stopped being finite; a FAILED finding
└── FailedError            a user's own method that gave no model; a FAILED finding

Anything else that is raised is a defect of the tool and ends with exit code 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

_COMPARED = 1000
_LONGEST = 200
"""Known names, and letters of one, that a misspelt name is compared with."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where, and what to do about it."""

    what: str
    """What is wrong, with the offending value."""
    where: str = ""
    """The file (with row or key), or the flag."""
    fix: str = ""
    """What to do."""

    def without(self, text: str) -> Problem:
        """Return the same, with a text that tells a reader nothing taken out."""
        what, where, fix = (part.replace(text, "") for part in (self.what, self.where, self.fix))
        return Problem(what, where, fix)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        end = "" if head.endswith("?") else "."
        told = f"{head}{end} {self.fix}" if self.fix else head
        return told if told.endswith((".", "?", "!")) else f"{told}."


class AuditError(Exception):
    """Base of every error this package raises on purpose."""


class _ProblemsError(AuditError):
    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InputError(_ProblemsError):
    """The files or flags cannot be audited; `problems` lists everything that is wrong."""


class PlanError(_ProblemsError):
    """The plan names something unknown or impossible; `problems` lists everything."""


class DivergedError(AuditError):
    """A loss or a weight stopped being finite while a method ran."""


class FailedError(AuditError):
    """A user's own method gave no model of the network that it was given."""


class Problems(list[Problem]):
    """What has been found wrong so far, so that all of it is said at once.

    >>> problems = Problems()
    >>> with problems.collecting():
    ...     raise InputError(Problem("is empty", "forget.csv"))
    >>> [str(problem) for problem in problems]
    ['forget.csv: is empty.']
    """

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add what an InputError or a PlanError within names, instead of raising it."""
        try:
            yield
        except (InputError, PlanError) as error:
            self.extend(error.problems)

    def raise_any(self, kind: type[InputError] | type[PlanError] = InputError) -> None:
        """Raise everything that was found, as one error; do nothing if nothing was."""
        if self:
            raise kind(self)


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names as a list, and how many more there are.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint for a misspelt `name`: the nearest known one, or all of them.

    >>> did_you_mean("srcub", ["gd", "scrub"])
    'Did you mean scrub?'
    >>> did_you_mean("x", ["gd", "scrub"])
    'Known: gd, scrub.'
    """
    names = sorted(known)
    # Nobody misspells one of thousands, and to compare with each takes minutes.
    near = get_close_matches(name[:_LONGEST], names, n=1) if len(names) <= _COMPARED else []
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known: {some(names, 20)}."
