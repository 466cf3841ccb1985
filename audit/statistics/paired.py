"""Two ways to answer the same samples: does one answer clearly more?

**Asked twice.** Of many ways some look better by chance, so that one that was chosen for it may not
be tested on the samples it was chosen by, unless the test is corrected for all of them. Tested on
others, the choice is no matter: whatever it was, each test there is exact, and it is enough to
correct for those that were chosen. Half the level for either asking keeps the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from poison_audit.statistics.estimates import more_often


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """How another way and the stated one answer the same samples, each of them once."""

    ahead: int
    """Samples that only the other way answers rightly."""
    behind: int
    """Samples that only the stated one does."""
    stated: int
    """All that the stated one does."""
    commonest: int
    """Samples of the commonest class."""
    total: int

    @property
    def more(self) -> int:
        """Samples that the other way answers more of."""
        return self.ahead - self.behind

    def matters(self, least: float) -> bool:
        """Say whether it answers a share of at least `least` more than the stated way and a guess.

        A way under which one class is named always answers the commonest class, and no more.

        >>> Paired(ahead=5, behind=0, stated=50, commonest=10, total=100).matters(0.05)
        True
        >>> Paired(ahead=5, behind=0, stated=50, commonest=55, total=100).matters(0.05)
        False
        """
        beyond = min(self.more, self.stated + self.more - self.commonest)
        return beyond >= max(1, least * self.total)

    def clear(self, *, level: float, ways: int) -> bool:
        """Say whether it answers more by more than chance, as the exact McNemar test has it.

        Args:
            level: chance that any of the ways is said to, where none does.
            ways: how many are tested at this level (Bonferroni).

        >>> few = Paired(ahead=5, behind=0, stated=0, commonest=1, total=5)  # p = 1/32
        >>> few.clear(level=0.04, ways=1), few.clear(level=0.04, ways=2)
        (True, False)
        """
        return more_often(self.ahead, self.behind) < level / ways
