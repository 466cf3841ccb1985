"""click's options, made from what `settings.py` declares, and `--help` in groups. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from poison_audit.commands.fields import SWITCH, Field, fields_of

F = TypeVar("F", bound=Callable[..., Any])
HEADINGS = ("Model", "Data", "Evidence", "Policy", "Methods", "", "Output")
"""Of `--help`, in their order; a command's own stand where the empty one is."""

WHERE = dict.fromkeys(("-o", "--out", "--output")).keys()
"""What says where a command writes; one that writes a single thing takes each of them."""


class Option(click.Option):
    """An option that stands under a heading of `--help`."""

    def __init__(self, *arguments: Any, heading: str, **settings: Any) -> None:
        """Take what click.Option takes, and the heading."""
        super().__init__(*arguments, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose `--help` puts every option under its heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each under the heading that it names."""
        found: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                found.setdefault(getattr(parameter, "heading", "Other"), []).append(record)
        own = HEADINGS.index("")
        for heading in sorted(found, key=lambda name: HEADINGS.index(name) if name in HEADINGS
                              else len(HEADINGS) if name == "Other" else own):  # fmt: skip
            with formatter.section(heading):
                formatter.write_dl(found[heading])


def options(*parts: type | Mapping[str, Field]) -> Callable[[F], F]:
    """Return a decorator that adds options: of dataclasses of `said` fields, or fields by name."""
    declared: dict[str, Field] = {}
    for part in parts:
        declared |= fields_of(part) if isinstance(part, type) else part

    # A command that writes two things says which.
    alone = sum(bool(WHERE & {each.short, each.flag}) for each in declared.values()) == 1

    def add(command: F) -> F:
        for name, each in reversed(declared.items()):
            command = _parameter(name, each, where=alone)(command)
        return command

    return add


def _parameter(name: str, declared: Field, *, where: bool) -> Callable[[F], F]:
    if not declared.flag:
        required = not declared.optional
        return click.argument(
            name,
            required=required,
            nargs=-1 if declared.several else 1,
            metavar=f"{declared.metavar}..." if declared.several else None,
            callback=_reading(declared),
        )
    flags = (declared.short, declared.flag)
    names = [*(WHERE if where and WHERE & {*flags} else filter(None, flags)), name]
    told = f"{declared.help}  [default: {declared.told}]" if declared.told else declared.help
    heading = declared.group.capitalize()
    if declared.kind is SWITCH:
        return click.option(*names, cls=Option, heading=heading, is_flag=True, help=told)
    return click.option(
        *names,
        cls=Option,
        heading=heading,
        metavar=declared.metavar or declared.kind.metavar,
        multiple=declared.several,
        required=declared.needed,
        callback=_reading(declared),
        help=told,
    )


def _reading(declared: Field) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return click's callback: None alone stands for what was not given."""

    def one(text: str) -> Any:
        try:
            return declared.kind.parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    def read(_: click.Context, __: click.Parameter, given: Any) -> Any:
        if given is None or not declared.several:
            return None if given is None else one(given)
        values = [one(text) for text in given]
        if declared.kind.joined:
            values = list(dict.fromkeys(name for names in values for name in names))
        return tuple(values) or None

    return read
