"""`diff`: what changed from one audit to another. No torch."""

from __future__ import annotations

from poison_audit.commands.own_settings import Differing
from poison_audit.commands.rendering import on_stdout
from poison_audit.commands.reviewing import read_report
from poison_audit.reports.formats.difference import render_difference
from poison_audit.verdict.compare import compare


def diff(settings: Differing) -> int:
    """Show what changed between two audits; return 0 no worse, 1 worse, 3 no longer measured."""
    comparison = compare(read_report(settings.before)[0], read_report(settings.after)[0])
    with on_stdout() as console:
        render_difference(comparison, console)
    return comparison.exit_code
