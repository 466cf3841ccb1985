"""Options under headings: how `--help` of a command with many of them is put in order."""

from __future__ import annotations

from typing import Any

import click


class Option(click.Option):
    """An option that stands under a heading of `--help`."""

    def __init__(self, *arguments: Any, heading: str, **settings: Any) -> None:
        """Take what click.Option takes, and the heading."""
        super().__init__(*arguments, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose `--help` puts every option under its heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each under the heading that it names, in the order of first use."""
        found: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                found.setdefault(getattr(parameter, "heading", "Other"), []).append(record)
        for heading, records in found.items():
            with formatter.section(heading):
                formatter.write_dl(records)
