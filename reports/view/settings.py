"""Whose settings an audit ran by: flags, an audit.toml, or what the checkpoint itself says."""

from __future__ import annotations

from collections.abc import Mapping

from poison_audit.reports.view.words import printable
from poison_audit.verdict.record import AuditRecord

_RECIPE = "recipe "
CHECKPOINT = "the checkpoint"


def settings_from(record: AuditRecord) -> str:
    """Return which file was read and what each source gave; empty where it is not recorded.

    Every input stands in the page's list of provenance with its own table or flag.
    """
    environment = record.environment
    told, file = environment.get("settings"), environment.get("config")
    if not isinstance(told, Mapping):
        return ""
    by_file = [name for name, source in told.items() if _is_of_file(str(source))]
    by_checkpoint = [name for name, source in told.items() if source == CHECKPOINT]
    by_flags = [name for name in told if name not in (*by_file, *by_checkpoint)]
    parts = [f"settings from {printable(str(file))}: {_listed(by_file)}" if file else ""]
    if not file:
        parts = ["settings from no audit.toml"]
    parts += [f"by flags: {_listed(by_flags)}"] if by_flags else []
    parts += [f"by the checkpoint itself: {_listed(by_checkpoint)}"] if by_checkpoint else []
    return "; ".join(parts)


def _is_of_file(source: str) -> bool:
    return source.endswith("]")


def _listed(names: list[str]) -> str:
    recipe = [name.removeprefix(_RECIPE) for name in names if name.startswith(_RECIPE)]
    told = [name for name in names if not name.startswith(_RECIPE)]
    told += [f"recipe ({', '.join(recipe)})"] if recipe else []
    return printable(", ".join(told)) or "nothing"
