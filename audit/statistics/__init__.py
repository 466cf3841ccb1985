"""Exact tests, intervals and rates, and what the numbers of a probe mean.

The files that compute are read where they are first used: the command line knows every reading,
and is not to wait for numpy and scipy before it can say `--help`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poison_audit.statistics import estimates, growth, laws, privacy, rates, squares, triggers

    __all__ = ["estimates", "growth", "laws", "privacy", "rates", "squares", "triggers"]


def __getattr__(name: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(f"{__name__} has no {name}") from error
