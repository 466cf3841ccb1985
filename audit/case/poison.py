"""What a poison is to everything that is not it: its name, its evidence, the probes it must pass.

Plain values, without torch: the command line, the policy and the reports are made from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from poison_audit.case.planting import Planting
from poison_audit.statistics.reading import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFile:
    """A file that a poison's probes need: a flag, and a key of audit.toml."""

    name: str
    """`canaries`: the flag is `--canaries`, the key in the poison's table `canaries`."""
    help: str
    """What it is, as `--help` says it."""
    file: str = ""
    """Its usual name, by which `init` finds it; without a suffix it is a table."""
    of: Literal["", "pictures"] = ""
    """What it says something of; empty: of pictures and of texts."""
    asked: bool = False
    """Whether `init` asks for it where there is none."""
    shared: str = ""
    """What it is to two audits, which can be compared only if they share it; empty: nothing."""
    digest: str = "sha256"
    """What names its content among what a record says of it (`subject`, by this file's name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """One kind of poison, as everything else sees it."""

    name: str
    """What forget.csv's `attack` says, and `plant --attack`."""
    readings: tuple[Reading[Any], ...]
    """The probes that a forget set which names this poison must pass."""
    files: tuple[EvidenceFile, ...] = ()
    keyed: bool = False
    """Whether a key names its samples, so that a sample's own id is its id in the key."""
    planting: Planting | None = None
    """How `plant` plants it; None: it does not."""

    @property
    def table(self) -> str:
        """The table of audit.toml that names its evidence."""
        return f"evidence.{self.name}"
