"""Readings: what the numbers of one probe mean.

A reading is all that is known of a probe outside its own folder. Who judges, compares or shows
findings asks it, and never by the probe's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from poison_audit.errors import InputError, Problem
from poison_audit.records import Outcome
from poison_audit.statistics.forms import read_form

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate
    from poison_audit.statistics.growth import Increase
    from poison_audit.statistics.squares import Scatter

E = TypeVar("E")
"""The evidence: a frozen dataclass whose fields have the types of `statistics.forms`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a reader of a report is told about a probe."""

    title: str
    """Over its column: `Gaussian`."""
    unit: str = "effect"
    """What its figure is: `mean leak score`."""
    samples: str = "samples"
    """What it counts: `canaries`."""
    needs: str = "The evidence that this probe names as missing."
    """What would have let it measure."""
    looks: str = "an effect"
    """What it looks for, to somebody who knows no probe."""
    means: str = "Figure"
    """What its figure is, where a sentence tells it: `Mean leak score`."""
    symbol: str = ""
    """Its figure in a few letters: `mu`."""
    axis: str = ""
    """What stands along an axis, if not the unit."""
    column: str = ""
    """Over its column where there is little room: `gauss.`; empty: the title."""
    minor: bool = False
    """Whether a table leaves it out first."""
    shows_z: bool = False
    """Whether a table tells how many standard errors it is from the null."""
    fresh: str = ""
    """What each canary is ranked among: `draws`."""
    held_out: str = ""
    """What was never planted, and is measured as well: `keys`."""
    law: str = ""
    """How the held-out ones are spread in any model: `N(0, 1)`."""
    alert: str = ""
    """Its name among the rules of a code scanner: `GaussianCanaries`."""
    step: str = ""
    """What to do where it is found, beside what is done about any poison."""
    found: str = "More is left than is tolerated."
    """What a finding of it means, in one sentence."""
    how: str = ""
    """How that was found, in a sentence or two."""
    awake: str = "the poison shows again"
    """What a model does in which it was asleep, once it is woken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a reading adds to a finding that was judged by its interval."""

    told: str = ""
    """Further sentences."""
    means: str | None = None
    """What takes the place of `Words.means`."""
    found: str | None = None
    """What takes the place of `Words.found`."""
    excused: bool = False
    """Whether what was found may be something else than poison, so that it decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Generic[E]):
    """What one probe's numbers mean."""

    name: str
    """The probe's."""
    title: str
    question: str
    needs: str
    """The evidence that it takes."""
    words: Words
    texts_only: bool = False
    """Whether it is asked of language models alone."""
    always: bool = False
    """Whether tables have a column for it even where it neither measured nor had to."""
    charts: tuple[str, ...] = ()
    """The charts of its evidence, by the names that reports know them under."""

    evidence: type[E] | None = None
    """What it saw; None: of a probe that nobody here knows."""
    estimate: Callable[[E, float, float], Estimate] | None = None
    """(evidence, level, tolerance) -> the effect; None: it decides nothing."""
    scatter: Callable[[E, float], Scatter] | None = None
    """(evidence, level) -> a second effect on the same scale, which harms upwards and has to be
    within the same tolerance: effects of either sign that leave the figure where it is."""
    figure: Callable[[E], float] | None = None
    """Evidence -> the figure alone, which is `least` without any effect: what a search of a
    method's numbers is scored by. None: nothing is searched by it."""
    details: Callable[[E, Estimate], dict[str, Any]] | None = None
    """(evidence, estimate) -> further figures of the finding."""
    remark: Callable[[E, Estimate, float, Outcome], Remark] | None = None
    """(evidence, estimate, tolerance, outcome by the interval) -> what has to be added."""
    increase: Callable[[E, E, float], Increase | None] | None = None
    """(before, after, level) -> by how much an attack grew on the same samples, None where these
    cannot be paired; None: its figures are never paired."""
    shown: Callable[[E], dict[str, Any]] | None = None
    """Of what decides nothing: evidence -> its figures, as fields of a Finding."""

    tolerance: float | None = None
    """Largest figure that counts as clean, unless a policy says otherwise; None: it decides
    nothing."""
    least: float = 0.0
    """Above this a tolerance must lie."""
    most: float = 1.0
    """Below this a tolerance must lie."""
    loosest: float = 0.5
    """Beyond this a tolerance lets next to every model pass, so that it has to be asked for."""
    two_sided: bool = False
    """Whether either side of the null is an effect; else only what lies above it."""
    points: bool = False
    """Whether the figure is a difference of shares, told in percentage points."""
    residue: bool = True
    """Whether it measures what is left of poison. If not, it measures what a repair did to the
    deployed model: that is BROKEN, and the deployed model itself is the yardstick."""
    if_named: bool = False
    """Whether it decides only where a forget sample is said to be this poison, and compares with
    references, so that a reference may have nothing to be compared with."""

    @property
    def excess(self) -> bool:
        """Whether it is what an attack has more than chance gives: only the harmful side counts."""
        return self.residue and self.points

    @property
    def damage(self) -> bool:
        """Whether it measures what a repair did to the deployed model."""
        return self.tolerance is not None and not self.residue

    def read(self, plain: Mapping[str, Any], where: str = "") -> E:
        """Return what a measurement holds, as this probe's evidence.

        Raises:
            InputError: everything that is wrong with it.
        """
        if self.evidence is None:
            raise InputError(Problem(f"no probe is named {self.name!r:.60}", where))
        return read_form(self.evidence, plain, where or f"evidence of {self.name}")

    def gates(self, *, named: bool) -> bool:
        """Say whether a measurement decides anything; `named`: a forget sample is this poison.

        Canaries, targets and triggers are given to be looked at. A reference is given for other
        reasons too, and accuracy may differ from it for others than poison.
        """
        return self.tolerance is not None and (named or not self.if_named)
