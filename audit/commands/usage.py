"""Flags that are wrong whatever the files hold: refused before torch or a table is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poison_audit.commands.arguments import CheckSettings, check_settings, policy_of
from poison_audit.commands.own_settings import Running
from poison_audit.errors import Problem, Problems

FLAG = "--"
"""What a problem's place begins with where it is a flag, and no file."""


def checked_settings(given: Mapping[str, Any]) -> CheckSettings:
    """Return the settings of a command that audits.

    Raises:
        InputError: everything that is wrong with the flags by themselves. What files hold, and
            what only methods and models know, is looked at later.
    """
    settings = check_settings(given)
    problems = Problems([*settings.problems, *wrong_together(settings)])
    with problems.collecting():
        policy_of(settings)
    Problems(each for each in problems if each.where.startswith(FLAG)).raise_any()
    return settings


def wrong_together(settings: CheckSettings) -> list[Problem]:
    """Return why flags do not go together, or cannot be what they are."""
    running = settings.running
    problems = _wrong_sigma(running) + _wrong_ray(running)
    for flag, named in (
        ("--method-from", settings.own.method_from),
        ("--probe-from", settings.own_probes.probe_from),
    ):
        if named and (running.ray or running.shard):
            what = "runs beside this process alone, not with --ray or --shard"
            problems.append(Problem(what, flag, "Give one of them"))
    return problems


def _wrong_sigma(running: Running) -> list[Problem]:
    problems, sigma = [], running.rehearse_sigma
    if sigma is not None and not running.rehearse:
        problems.append(Problem("belongs to --rehearse", "--rehearse-sigma", "Add --rehearse"))
    if sigma is not None and not 0 < sigma <= 10:
        what = f"must be above 0 and at most 10, got {sigma:g}"
        problems.append(Problem(what, "--rehearse-sigma"))
    return problems


def _wrong_ray(running: Running) -> list[Problem]:
    share = running.ray_gpus
    if running.ray is not None and running.shard:
        return [Problem("does not go with --shard", "--ray", "Give one of them")]
    if share is not None and running.ray is None:
        return [Problem("belongs to --ray", "--ray-gpus", "Add --ray")]
    if share is not None and not 0 <= share <= 64:
        return [Problem(f"must be from 0 to 64, got {share:g}", "--ray-gpus")]
    return []
