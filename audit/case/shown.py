"""What a report shows of a case's files: which were read, lines to point at, samples to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from poison_audit.records import Asked, Count, Digest

_PNG = "^iVBORw0KGgo[A-Za-z0-9+/]*={0,2}$"
Png = Annotated[str, Asked({"pattern": _PNG})]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file or folder that the audit read."""

    role: str
    """What it was read as: `model`, `train`, `forget`, `candidate NAME` and the like."""
    path: str
    """As the audit was given it: relative to its working folder, or absolute."""
    sha256: Digest
    """Of its bytes; of a folder, over the sorted lines `sha256  relative/path` of its files."""
    size: Count
    """Bytes, of a folder all of them together."""
    folder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line of a text file, for what points at files: SARIF."""

    uri: str
    """Relative to the top of the git working tree, else to the working folder; `/` between."""
    line: Annotated[int, Asked({"ge": 1})]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A sample to look at: the trigger on an input, a target of the attack, a forget sample."""

    role: Literal["target", "forget", "trigger", "flip"]
    """A flip is a forget sample whose wrong label the model gives surely."""
    name: str
    """Its id in its table."""
    label: str
    """As it was trained; of a target the true one."""
    attack: str = ""
    """What a forget sample is said to be part of."""
    png: Png | None = None
    """A picture of at most 96 x 96 pixels: base64 of a PNG file."""
    text: str | None = None
    """A text, cut to at most 400 characters."""
    bare: Png | None = None
    """The same picture without the trigger."""
    true: str | None = None
    """The true label, where `label` is a wrong one that it was trained with."""
    wanted: str | None = None
    """The label that the attacker wanted."""
    answer: str | None = None
    """What the deployed model answers to what is shown; None: it was not asked."""
    without: str | None = None
    """What it answers without the trigger."""
