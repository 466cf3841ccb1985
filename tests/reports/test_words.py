import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_audit.reports.view.words import (
    duration,
    memory,
    p_value,
    percent,
    printable,
    value,
)
from poison_audit.statistics.rounding import rounded


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain é 毒 שלום", "plain é 毒 שלום"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\udcff", r"\udcff"),  # a byte of a path that is not UTF-8
    ],
)
def test_what_cannot_be_seen_is_written_out(raw, shown):
    assert printable(raw) == shown


@given(st.text())
def test_no_control_or_formatting_character_is_left(text):
    assert not any(
        unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in printable(text)
    )


@pytest.mark.parametrize(
    ("numbers", "limits", "shown"),
    [
        # Nothing near a limit: the fewest decimals.
        ((1.294, 1.171, 1.416), [0.0, 0.25, -0.25], ("1.29", "1.17", "1.42")),
        # Beyond the tolerance by 0.0004, or within it by 0.0004: never shown as on it.
        ((0.20, 0.15, 0.2504), [0.25], ("0.2000", "0.1500", "0.2504")),
        ((0.20, 0.15, 0.2496), [0.25], ("0.2000", "0.1500", "0.2496")),
        # On it exactly.
        ((0.20, 0.15, 0.25), [0.25], ("0.20", "0.15", "0.25")),
        # The interval excludes the null by 0.003.
        ((0.10, 0.003, 0.2), [0.0], ("0.100", "0.003", "0.200")),
        # 2 * 0.5 - 0.57 in floating point is a little above 0.43.
        ((0.47, 0.43, 0.51), [2 * 0.5 - 0.57], ("0.47", "0.43", "0.51")),
        ((0.47, 0.4299, 0.51), [2 * 0.5 - 0.57], ("0.4700", "0.4299", "0.5100")),
        # No minus zero.
        ((-0.001, -0.3, 0.3), [0.25], ("0.00", "-0.30", "0.30")),
    ],
)
def test_rounding_never_moves_a_bound_across_a_limit(numbers, limits, shown):
    assert rounded(*numbers, limits=limits, least=2) == shown


@given(st.floats(-2, 2), st.floats(0, 1), st.sampled_from([0.25, 0.57, 0.02]))
def test_a_shown_bound_stands_on_its_own_side(middle, half, limit):
    low, high = middle - half, middle + half
    _, *shown = rounded(middle, low, high, limits=[limit], least=2)
    for bound, text in zip((low, high), shown, strict=True):
        # Exact arithmetic on the text, to within the six decimals that are ever shown.
        if abs(bound - limit) > 1e-6:
            assert (Fraction(text) > Fraction(str(limit))) == (bound > limit)


def test_the_sign_is_written_where_asked_for():
    assert rounded(1.0, 0.5, 1.5, least=1, sign="+") == ("+1.0", "0.5", "1.5")
    assert rounded(-1.0, -1.5, -0.5, least=1, sign="+") == ("-1.0", "-1.5", "-0.5")


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.8312, "83.1%"), (0.9999, "99.99%"), (0.0002, "0.02%")],
)
def test_a_percentage_is_whole_only_where_it_is(share, shown):
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "under 0.01 s"),
        (0.25, "0.25 s"),
        (0.999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (86400, "24 h 00 min"),
    ],
)
def test_times_carry_over(seconds, shown):
    assert duration(seconds) == shown


def test_values_of_every_json_type():
    assert value("") == value(None) == "none"
    assert value(False) == "no"
    assert value([]) == "[]"
    assert value([[0.5, 0.25], [1]]) == "0.5, 0.25; 1"
    assert value({"b": 1, "a": "x\n"}) == r'{"a": "x\n", "b": 1}'
    assert p_value(0.9999) == "p = 1.000"
    assert memory(2**30 - 1) == "1024 MiB"
