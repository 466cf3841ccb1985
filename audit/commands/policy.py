"""How it will be decided: flags over audit.toml over the standard, or over an earlier report's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from poison_audit.atomic import from_json
from poison_audit.commands.config import Config, parse_number, read_config
from poison_audit.errors import InputError, PlanError, Problem, Problems
from poison_audit.records import AuditRecord, Policy
from poison_audit.verdict.policy import make_policy, standard_policy


def policy_of(
    config: Config,
    *,
    tolerances: Mapping[str, float],
    alpha: float | None,
    gate: str | None,
    exit_zero: bool,
    today: str,
    base: Policy | None = None,
) -> Policy:
    """Put flags over [policy] and [[accept]] of audit.toml over `base`; None: no flag was given.

    Raises:
        PlanError: everything that is unknown or impossible.
    """
    said = {key: value for (table, key), value in config.values.items()
            if table == "policy.tolerances"}  # fmt: skip
    return make_policy(
        alpha=config.get("policy", "alpha") if alpha is None else alpha,
        gate=config.get("policy", "gate") if gate is None else gate,
        tolerances={**said, **tolerances},
        accepted=config.accepted,
        where=str(config.path),
        exit_zero=exit_zero,
        today=today,
        base=base,
    )


def read_policy(
    path: Path | None,
    record: AuditRecord,
    *,
    gate: str | None,
    alpha: float | None,
    tolerances: Mapping[str, float],
    exit_zero: bool,
    today: str,
) -> Policy:
    """Return the policy to decide by: flags over a file, else over the record's own.

    Args:
        path: an audit.toml, of which [policy] and [[accept]] count and what it does not say is the
            default; or a report.json, whose policy is taken. None: the record's.
        record: what is to be decided.
        today: the UTC day, YYYY-MM-DD, by which acceptances expire.

    Raises:
        InputError: the file cannot be read.
        PlanError: everything that is unknown or impossible.
    """
    config, base = Config(), record.plan.policy
    if path is not None and path.suffix == ".json":
        base = _policy_in(path)
    elif path is not None:
        config, base = read_config(path), standard_policy()
    return policy_of(
        config,
        tolerances=tolerances,
        alpha=alpha,
        gate=gate,
        exit_zero=exit_zero,
        today=today,
        base=base,
    )


def _policy_in(path: Path) -> Policy:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read ({error})", str(path))) from error
    return from_json(AuditRecord, text, where=str(path)).plan.policy


def read_tolerances(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the tolerances of `--tolerance PROBE=VALUE`.

    Raises:
        PlanError: every value that is no number.
    """
    found, problems = {}, Problems()
    for name, text in pairs:
        value = parse_number(text)
        if isinstance(value, str):
            problems.append(Problem(f"expected a number, got {text!r}", f"--tolerance {name}"))
        else:
            found[name] = float(value)
    problems.raise_any(PlanError)
    return found
