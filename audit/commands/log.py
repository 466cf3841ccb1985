"""A report logged to MLflow after the fact: metrics, params, tags, and the page. No torch.

It goes where MLflow's own settings say: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and so on.
Logging decides nothing: whatever goes wrong is said on stderr, and the exit code stays.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import click

from poison_audit.reports.formats import FORMATS
from poison_audit.reports.view.words import printable
from poison_audit.verdict.record import AuditRecord

LONGEST = 250
"""Letters of a name or a value, which every store takes."""


def log_to_mlflow(record: AuditRecord) -> None:
    """Log a report as a run of MLflow; say on stderr where, or why not."""
    # Nothing is sent to anybody but the store that the user named.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        # What MLflow prints is no part of what was asked for on stdout.
        with redirect_stdout(sys.stderr):
            mlflow = import_module("mlflow")
            with mlflow.start_run(run_name=_name(record.subject.get("model") or "model")) as run:
                mlflow.set_tags(tags(record))
                mlflow.log_params(params(record))
                mlflow.log_metrics(metrics(record))
                for name in ("html", "json"):
                    mlflow.log_text(FORMATS[name].render(record), FORMATS[name].file)
        told = f"Logged to MLflow: run {printable(str(run.info.run_id))}."
    except ModuleNotFoundError as error:
        told = f"Not logged to MLflow: {error}. Install it: pip install 'poison-audit[mlflow]'"
    except Exception as error:  # whatever a store raises: logging decides nothing
        why = printable(f"{type(error).__name__}: {error}")
        told = f"Not logged to MLflow ({why[:LONGEST]}). The exit code is that of the report."
    click.echo(told, err=True)


def metrics(record: AuditRecord) -> dict[str, float]:
    """Return every figure with the ends of its interval, by candidate and probe."""
    found = {"exit_code": float(record.verdict.exit_code)}
    for each in record.findings:
        if each.statistic is not None and each.interval is not None:
            parts = [each.candidate, f"seed{each.seed}" * bool(each.seed), each.probe, each.way]
            name = "/".join(part for part in parts if part)
            found[_name(name)] = each.statistic
            found[_name(f"{name}/low")] = each.interval.low
            found[_name(f"{name}/high")] = each.interval.high
    return found


def params(record: AuditRecord) -> dict[str, Any]:
    """Return how the audit was asked."""
    plan, policy = record.plan, record.plan.policy
    tolerances = {f"tolerance/{name}": most for name, most in policy.tolerances.items()}
    told = {
        "gate": policy.gate, "alpha": policy.alpha, "seed": plan.seed, "seeds": plan.seeds,
        "budget": plan.budget, "methods": ",".join(step.name for step in plan.methods) or "none",
        **tolerances,
    }  # fmt: skip
    return {_name(key): _name(value) if isinstance(value, str) else value
            for key, value in told.items()}  # fmt: skip


def tags(record: AuditRecord) -> dict[str, str]:
    """Return what was found, and of what."""
    verdict = record.verdict
    told = {
        "outcome": verdict.outcome.value,
        "exit_code": verdict.exit_code,
        "reason": verdict.sentence,
        "model_sha256": record.subject.get("model_sha256"),
        "comparability": record.comparability,
        "report_digest": record.seal.digest if record.seal else None,
        "tool": f"poison-audit {record.tool_version}",
    }
    return {
        f"poison_audit.{key}": printable(str(value))[:LONGEST]
        for key, value in told.items()
        if value is not None
    }


def _name(text: object) -> str:
    """Return a name that every store takes: letters, digits, and a few signs."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", str(text))[:LONGEST]
