"""Are pictures of the size that training saw? Of many networks nothing in them tells.

A network that pools its features answers pictures of any size, smaller ones nearly as well. In a
picture that was made smaller than the model's were, a trigger is no longer the one it learned: a
live backdoor then looks like none. Where nobody says the size, the report says so.
"""

from __future__ import annotations

import re

from poison_audit.case.case import Case
from poison_audit.errors import InputError, Problem
from poison_audit.models.fit import stated_size, takes_any_size


def limits_of_size(case: Case, said: str | None) -> tuple[str, ...]:
    """Return what has to be said of the size of the pictures: nothing where it is known.

    Args:
        case: whose pictures the model answers.
        said: the side of training's pictures, or height and width as `32x48`; None: nobody said it.

    Raises:
        InputError: it is no size, or the pictures have another.
    """
    where = "--expect-size"
    if case.model.reader is not None:
        if said is not None:
            raise InputError(Problem("texts have no size in pixels", where, "Leave it out"))
        return ()
    height, width = case.test.x.shape[2:]
    if said is None:
        known = stated_size(case.model.module) is not None
        if known or not takes_any_size(case.model, case.test.batch(slice(0, 1))):
            return ()
        return (
            f"The network answers pictures of any size, and nobody said that training's were "
            f"{height}x{width} ({where}): pictures that were made smaller may lose a trigger.",
        )
    sides = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", said.strip().lower())
    if sides is None:
        fix = "Give the side of the pictures, such as 32, or HEIGHTxWIDTH"
        raise InputError(Problem(f"is no size: {said!r:.60}", where, fix))
    if (int(sides[1]), int(sides[2] or sides[1])) != (height, width):
        what = (
            f"training's pictures were of {said}, and those in the tables are of {height}x{width}"
        )
        fix = "Store the tables' pictures, and a trigger, as training saw them"
        raise InputError(Problem(what, where, fix))
    return ()
