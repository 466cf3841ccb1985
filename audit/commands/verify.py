"""`verify`: a report's verdict computed again, and its files. No torch."""

from __future__ import annotations

from poison_audit.commands.own_settings import Verifying
from poison_audit.commands.rendering import print_whole
from poison_audit.commands.reviewing import read_report
from poison_audit.verdict.verify import summary, verify_exit_code
from poison_audit.verdict.verify import verify as compute_again


def verify(settings: Verifying) -> int:
    """Verify a report; return 0 all agrees, 1 something differs, 3 something was not found."""
    path = settings.report
    record, _ = read_report(path)
    folder = path if path.is_dir() else path.parent
    files = not settings.no_files
    checks = compute_again(record, root=settings.root, folder=folder, look_at_files=files)
    print_whole(summary(checks))
    return verify_exit_code(checks)
