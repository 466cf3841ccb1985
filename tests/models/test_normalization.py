"""Normalisations: every spelling, every refusal."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_audit.errors import InputError
from poison_audit.models.normalization import (
    normalize_from_header,
    parse_normalize,
    same_normalize,
    spell_normalize,
)

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_names():
    # The usual constants, as torchvision's documentation prints them.
    assert parse_normalize("imagenet") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert parse_normalize("cifar10")[0] == (0.4914, 0.4822, 0.4465)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("imagenett", "Did you mean imagenet"),
        ("", "unknown normalisation ''"),
        ("0.5", "not two groups"),
        ("0.5,0.5,0.5", "not two groups"),
        ("0.1/0.2/0.3", "not two groups"),
        ("0.5,0.5/0.2", "2 means and 1 standard deviations"),
        ("0.5,x/0.2,0.2", "unknown normalisation"),
        ("123.7,116.3,103.5/58,57,57", "divide by 255"),
        ("0.5,0", "not above 0"),
        ("0.5,-1", "not above 0"),
        ("nan,0.5", "outside"),
        ("0.5,inf", "not above 0"),
        ("0.5,nan", "not above 0"),
    ],
)
def test_refusals(text, reason):
    with pytest.raises(InputError, match=reason):
        parse_normalize(text)


unit = st.floats(0, 1)
positive = st.floats(1e-6, 10)


@given(st.lists(st.tuples(unit, positive), min_size=1, max_size=4))
def test_spelling_reads_back(pairs):
    mean, std = zip(*pairs, strict=True)
    assert parse_normalize(spell_normalize((mean, std))) == (mean, std)


def test_one_value_serves_all_channels():
    assert same_normalize(((0.5,), (0.25,)), HALF)
    assert not same_normalize(((0.5,), (0.2,)), HALF)
    assert not same_normalize(((0.5, 0.5), (0.25, 0.25)), HALF)


@pytest.mark.parametrize("text", ["", "[1]", "[[0.5], 3]", '[["a"], [1]]', "[[true], [1]]", "{}"])
def test_a_malformed_header_is_refused(text):
    with pytest.raises(InputError, match=r"header poison_audit\.normalize"):
        normalize_from_header({"poison_audit.normalize": text}, where="m.safetensors")


def test_a_header_is_read_or_silent():
    text = json.dumps(HALF)
    assert normalize_from_header({"poison_audit.normalize": text}, where="m") == HALF
    assert normalize_from_header({"format": "pt"}, where="m") is None


def test_a_spelling_loses_no_digit():
    third = 1 / 3
    (mean,), (std,) = parse_normalize(spell_normalize(((third,), (math.pi,))))
    assert (mean, std) == (third, math.pi)
