"""`render`: a report again, in any format. No torch."""

from __future__ import annotations

from poison_audit.atomic import write_atomically
from poison_audit.commands.log import log_to_mlflow
from poison_audit.commands.own_settings import Rendering
from poison_audit.commands.rendering import print_whole, refuse_foreign, show
from poison_audit.commands.reviewing import read_report
from poison_audit.errors import InputError, Problem
from poison_audit.reports.formats import FORMATS


def render(settings: Rendering) -> int:
    """Render a report again; return the exit code it holds."""
    formats, output = settings.formats, settings.output
    record, _ = read_report(settings.report)
    if not formats:
        if output is not None:
            raise InputError(Problem("says where, but not what", "-o", "Add --format"))
        show(record)
    elif output is None and len(formats) == 1:
        print_whole(FORMATS[formats[0]].render(record))
    elif output is not None and len(formats) == 1 and not output.is_dir():
        write_atomically(output, FORMATS[formats[0]].render(record))
    else:
        # As `check --format` does: beside the report, which itself stays as it is.
        folder = output or (settings.report if settings.report.is_dir() else settings.report.parent)
        named = [name for name in formats if output is not None or name != "json"]
        refuse_foreign(folder)
        for name in named:
            file = folder / FORMATS[name].file
            write_atomically(file, FORMATS[name].render(record))
            print(file)
    if settings.log is not None:
        log_to_mlflow(record)
    return record.verdict.exit_code
