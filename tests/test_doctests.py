"""The examples in docstrings say what is so."""

import doctest
import importlib
import pkgutil

import pytest

import poison_audit

NAMES = [
    name
    for _, name, _ in pkgutil.walk_packages(poison_audit.__path__, "poison_audit.")
    if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
