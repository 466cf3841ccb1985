"""`render`: a report again, in any format. No torch."""

from __future__ import annotations

from poison_audit.atomic import write_atomically
from poison_audit.commands.log import log_to_mlflow
from poison_audit.commands.own_settings import Rendering
from poison_audit.commands.rendering import print_whole, show
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
    elif output is None:
        if len(formats) > 1:
            what = f"are {len(formats)} formats, and stdout takes one"
            raise InputError(Problem(what, "--format", "Give a folder by -o"))
        print_whole(FORMATS[formats[0]].render(record))
    elif len(formats) == 1 and not output.is_dir():
        write_atomically(output, FORMATS[formats[0]].render(record))
    else:
        for name in formats:
            write_atomically(output / FORMATS[name].file, FORMATS[name].render(record))
    if settings.log is not None:
        log_to_mlflow(record)
    return record.verdict.exit_code
