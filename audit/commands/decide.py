"""`decide`: a report again under another policy, from its raw scores. No torch."""

from __future__ import annotations

from dataclasses import replace

from poison_audit.atomic import from_json, to_json
from poison_audit.commands.arguments import DecideSettings, policy_of
from poison_audit.commands.rendering import refuse_foreign, show, write_reports
from poison_audit.commands.reviewing import read_report, read_whole
from poison_audit.errors import InputError, Problem
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.renderer import renderer
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.policy import standard_policy
from poison_audit.verdict.record import AuditRecord
from poison_audit.verdict.redecide import redecide
from poison_audit.verdict.seal import is_signed_here, refuse_edited, sealed


def decide(settings: DecideSettings) -> int:
    """Decide a report again, under another policy; return the new exit code.

    The flags win over the policy that `--policy` names, or else over the record's own. Of an
    audit.toml, [policy] and [[accept]] count, and what it does not say is the default.
    """
    again = settings.again
    read = read_whole(again.report)
    earlier, digest = read.record, read.digest
    refuse_edited(earlier, read.tree, str(read.file))
    base = earlier.plan.policy
    if settings.config.path is not None:
        base = standard_policy()
    elif again.policy is not None:
        base = read_report(again.policy)[0].plan.policy
    record = redecide(earlier, policy_of(settings, base=base))
    environment = {
        **record.environment,
        "decided_again": settings.today,
        "decided_from": digest,
        "renderer": renderer(),
    }
    record = replace(record, environment=environment, comparability=comparability(record))
    # What is signed here was measured here.
    ours = is_signed_here(earlier, read.tree)
    record = sealed(from_json(AuditRecord, to_json(record)), sign=ours)
    out = again.output
    if out is not None:
        if (out / FORMATS["json"].file).exists():
            what = "holds a report already, and an earlier decision is never overwritten"
            raise InputError(Problem(what, str(out), "Choose another -o"))
        refuse_foreign(out)
        write_reports(record, out, formats=again.formats)
    show(record)
    return record.verdict.exit_code
