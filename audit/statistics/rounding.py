"""Numbers as text, rounded so that no bound seems to cross what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence


def rounded(
    estimate: float,
    low: float,
    high: float,
    *,
    limits: Sequence[float] = (),
    least: int,
    sign: str = "",
) -> tuple[str, str, str]:
    """Round an estimate and its interval alike, so that neither bound seems to cross a limit.

    A bound of 0.2504 against a tolerance of 0.25 is not shown as 0.25.

    Args:
        limits: what the bounds are compared with.
        least: the fewest decimals; at most 6 are shown.
        sign: `+` to write the estimate's sign always.

    >>> rounded(0.1, 0.004, 0.2504, limits=[0.25], least=2)
    ('0.1000', '0.0040', '0.2504')
    """

    def kept(places: int) -> bool:
        return all(
            _side(round(bound, places), limit) == _side(bound, limit)
            for bound in (low, high)
            for limit in exact
        )

    # 2 * 0.5 - 0.57 is not 0.43: a limit is meant to be the decimal that it prints as.
    exact = [round(limit, 9) for limit in limits]
    places = next((p for p in range(least, 6) if kept(p)), 6)
    return f"{estimate:{sign}z.{places}f}", f"{low:z.{places}f}", f"{high:z.{places}f}"


def _side(bound: float, limit: float) -> int:
    return (bound > limit) - (bound < limit)


def short(number: float) -> str:
    """Return a number that somebody chose as short as it can be written.

    >>> short(0.25), short(2 * 0.5 - 0.57), short(5.0), short(-0.0)
    ('0.25', '0.43', '5', '0')
    """
    return f"{round(number, 9) + 0.0:.9g}"


def points(share: float) -> str:
    """Return a share that somebody chose in percentage points.

    >>> points(0.01), points(0.05), points(0.005)
    ('1 point', '5 points', '0.5 points')
    """
    number = short(100 * share)
    return f"{number} {'point' if number == '1' else 'points'}"


def share(level: float) -> str:
    """Return a level in (0, 1) in percent, never as 100%.

    >>> share(0.95), share(0.9875), share(0.99979), share(0.9999999)
    ('95%', '98.75%', '99.98%', '99.99999%')
    """
    return f"{100 * level:.10g}%" if level > 0.9999 else f"{100 * level:.4g}%"


def with_interval(numbers: tuple[str, str, str], level: float, unit: str = "") -> str:
    """Return an estimate with its interval behind it.

    Args:
        numbers: estimate, low and high, as `rounded` returns them.
        level: of the interval, in (0, 1).
        unit: of the estimate, with a space before it.

    >>> with_interval(("0.38", "0.26", "0.50"), 0.95)
    '0.38 (95% interval 0.26 to 0.50)'
    """
    estimate, low, high = numbers
    return f"{estimate}{unit} ({share(level)} interval {low} to {high})"
