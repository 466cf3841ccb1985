"""What an audit gives to a Python program: the record of report.json, and what is done with it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from poison_audit.commands.rendering import refuse_foreign, write_reports
from poison_audit.commands.reviewing import read_report
from poison_audit.errors import InputError, Problem, did_you_mean
from poison_audit.records import Outcome
from poison_audit.reports.formats import FORMATS
from poison_audit.verdict import record as verdict

_PASSES = (Outcome.CLEAN, Outcome.ACCEPTED)
_COLUMNS = (
    "candidate", "probe", "seed", "way", "outcome", "statistic", "low", "high", "tolerance",
    "null", "p_value", "sample_size", "detectable", "gating", "reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord(verdict.AuditRecord):
    """A finished audit, frozen: what report.json holds.

    `verdict` is what it comes to (`outcome`, `exit_code`, `sentence`, `next_step`, and one of
    `candidates` a model); `findings` are figures with interval, tolerance, outcome and a sentence.
    A notebook shows it as its page.
    """

    @property
    def passed(self) -> bool:
        """Whether the gate passed. What could not be measured does not."""
        return self.verdict.exit_code == 0 and self.verdict.outcome in _PASSES

    def to_frame(self) -> Any:
        """Return the findings as a pandas DataFrame, a row each; pandas has to be installed."""
        try:
            import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ModuleNotFoundError as error:
            fix = "Install it by pip install pandas; `findings` holds the same as plain objects"
            raise InputError(Problem("pandas is not installed", "to_frame", fix)) from error
        rows = []
        for finding in self.findings:
            plain = {**asdict(finding), "outcome": str(finding.outcome), "low": None, "high": None}
            if finding.interval is not None:
                plain |= {"low": finding.interval.low, "high": finding.interval.high}
            rows.append([plain[name] for name in _COLUMNS])
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def html(self) -> str:
        """Return the report as one self-contained HTML page."""
        return FORMATS["html"].render(self)

    def save(self, folder: str | Path, formats: Sequence[str] = ()) -> Path:
        """Write report.html and report.json, and other formats by name; return the folder.

        Raises:
            InputError: no format has this name, or somebody else's files are there.
        """
        if unknown := [name for name in formats if name not in FORMATS]:
            hint = did_you_mean(unknown[0], FORMATS)
            raise InputError(Problem(f"no format is named {unknown[0]}", "formats", hint))
        folder = Path(folder)
        refuse_foreign(folder)
        write_reports(self, folder, formats=formats)
        return folder

    def _repr_html_(self) -> str:
        # In a frame of its own, so that neither page's style reaches the other. Nothing in it runs.
        page = html.escape(self.html())
        return (
            f'<iframe srcdoc="{page}" sandbox="" style="width: 100%; height: 640px; border: 0" '
            'title="poison-audit"></iframe>'
        )


def result(record: verdict.AuditRecord) -> AuditRecord:
    """Return a record with what a Python program does with it."""
    own = {each.name: getattr(record, each.name) for each in fields(record)}
    return AuditRecord(**own)


def read(path: str | Path) -> AuditRecord:
    """Read a report.json, or that of a run directory, again.

    Raises:
        InputError: there is none, or it is none.
    """
    return result(read_report(Path(path))[0])
