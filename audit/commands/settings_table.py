"""The README's table of what audit.toml and the flags say, made from the settings.

`python -m poison_audit.commands.settings_table README.md` writes it between its two marks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from poison_audit.atomic import write_atomically
from poison_audit.commands.settings import ACCEPTANCE, TABLES

START, END = "<!-- settings -->", "<!-- /settings -->"
_PARAMETERS = (
    "| `[methods.NAME]`, `[probes.NAME]` | `--set NAME.KEY=VALUE` | Parameters, as "
    "`poison-audit methods` lists them. |"
)
_TOGETHER = {
    "training": "How the model was trained, with what holds where nobody says",
    "policy.tolerances": "The largest figure that counts as clean, by probe",
}


def settings_table() -> str:
    """Return the table, as Markdown."""
    lines = ["| audit.toml | flag | |", "|---|---|---|"]
    for table, keys in TABLES.items():
        # The keys of one KEY=VALUE flag share a row.
        together = [declared for declared in keys.values() if declared.flag.endswith("=")]
        if together:
            told = ", ".join(f"`{f.key}`" + (f" {f.told}" if f.told else "") for f in together)
            flag = f"{together[0].flag.split()[0]} KEY=VALUE"
            lines.append(f"| `[{table}]` | `{flag}` | {_TOGETHER[table]}: {told}. |")
        for key, declared in keys.items():
            if declared not in together:
                told = f" Default: {declared.told}." if declared.told else ""
                lines.append(f"| `[{table}] {key}` | `{declared.flag}` | {declared.help}{told} |")
    accepted = ", ".join(f"`{key}`" for key in ACCEPTANCE)
    lines += [_PARAMETERS, f"| `[[accept]]` | | A risk that somebody answers for: {accepted}. |"]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return a document with the table between its two marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{settings_table()}\n{END}{after}"


if __name__ == "__main__":
    document = Path(sys.argv[1])
    write_atomically(document, with_table(document.read_text(encoding="utf-8")))
