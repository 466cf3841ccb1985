"""Measure how hard the texts that people read are: Flesch-Kincaid grade, and the longest sentence.

    pip install textstat==0.7.8
    python tests/measurements/readability.py [--worst 20]

The first screens are those of `builders.situations`, as the page shows them above its table. The
rest is whole pages below that, and help, errors and documents as they stand in the source. Figures
count as one word of one syllable, and so do names of files, flags and commands: what they are is
not ours to choose. The second figure leaves them out of the syllables. A list whose items a
semicolon parts counts as its items. textstat 0.7.8 brings the dictionary of syllables with it,
later versions fetch it.
"""

from __future__ import annotations

import argparse
import ast
import html
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

from builders.more_records import ALL
from builders.sentences import FIGURE, NAME, first_screen, sentences
from builders.situations import SITUATIONS
from poison_audit.cli import cli
from poison_audit.reports.page.html import render_html

HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Group:
    """Texts of one kind."""

    name: str
    sentences: tuple[str, ...]
    first: bool = False
    """Whether they stand on the first screen."""


def grade(found: tuple[str, ...], *, words: bool = False) -> float:
    """Return the Flesch-Kincaid grade of sentences; of their `words` alone, or of all that counts.

    The first takes names and figures out of the average number of syllables, not of the length.
    """
    import textstat

    # What ends no sentence must not look as if it did.
    text = " ".join(re.sub("[.!?]", " ", s) + "." for s in found)
    told = float(textstat.flesch_kincaid_grade(text))
    if not words:
        return told
    english = re.sub(rf"\b({NAME}|{FIGURE})\b", "", text)
    syllables = [
        textstat.syllable_count(part) / textstat.lexicon_count(part) for part in (text, english)
    ]
    return told + 11.8 * (syllables[1] - syllables[0])


def first_screens() -> Group:
    """Return the sentences above the table of each situation."""
    found = [one for make in SITUATIONS.values() for one in first_screen(make())]
    return Group("first screens", tuple(dict.fromkeys(found)), first=True)


def pages() -> Group:
    """Return every sentence of whole pages below the first screen."""
    found: list[str] = []
    for make in [*SITUATIONS.values(), *(ALL[name] for name in ALL if "hostile" not in name)]:
        page = render_html(make())
        page = page[page.index('<section aria-labelledby="candidates">') :]
        page = re.sub(r"<(title|desc)[^>]*>.*?</\1>", "", page, flags=re.S)
        page = re.sub(r"<(svg|table|small|bdi|summary|h\d|dt)\b.*?</\1>", NAME, page, flags=re.S)
        page = re.sub(r"</(p|li|dd|figcaption|caption)>", "\n", page)
        text = html.unescape(re.sub(r"<[^>]*>", " ", page))
        for line in text.split("\n"):
            found += sentences(line)
    return Group("pages below it", _whole(found))


def _whole(found: list[str]) -> tuple[str, ...]:
    """Return what is more than a label, once each."""
    return tuple(dict.fromkeys(s for s in found if len(s.split()) > 3))


def errors() -> Group:
    """Return what is said when something is wrong: all that a Problem is made of, and notices."""
    found: list[str] = []
    for path in sorted((HERE / "audit").rglob("*.py")):
        for text in _strings(path):
            found += sentences(text)
    return Group("findings, advice and errors", _whole(found))


def _strings(path: Path) -> Iterator[str]:
    """Yield the sentences in a file's strings: no docstrings, no names, no patterns."""
    tree = ast.parse(path.read_text("utf-8"))
    silent = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        if id(node) in silent or id(node) in inner:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str)
                else NAME
                for part in node.values
            )  # fmt: skip
        else:
            continue
        if len(re.findall(r"[a-z]{2,} ", text)) > 3 and not re.search(r"[\\{}<>]|\bdef ", text):
            yield text


def helps() -> Group:
    """Return what `--help` says, of every command."""
    found: list[str] = []
    commands = [cli, *cli.commands.values()] if isinstance(cli, click.Group) else [cli]
    for command in commands:
        found += sentences((command.help or "").replace("\b", ""))
        for param in command.params:
            found += sentences(getattr(param, "help", None) or "")
    return Group("help", _whole(found))


def document(path: Path) -> Group:
    """Return the prose of a Markdown file: no code, no tables."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.S)
    text = re.sub(r"<!--.*?-->|<[^>]+>", "", text, flags=re.S)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    lines = [line for line in text.split("\n") if not re.match(r"\s{4}|\||#|\[", line)]
    paragraphs = re.split(r"\n\s*\n|\n(?=[-*] |\d\. )", "\n".join(lines))
    found = [s for part in paragraphs for s in sentences(part.replace("\n", " "))]
    return Group(str(path.relative_to(HERE)), _whole(found))


def main() -> None:
    """Print the table, and the longest sentences where they are asked for."""
    parser = argparse.ArgumentParser(description="Readability of the texts that people read.")
    parser.add_argument("--worst", type=int, default=0, help="longest sentences shown, a group")
    worst: int = parser.parse_args().worst
    groups = [first_screens(), pages(), errors(), helps(), document(HERE / "README.md")]
    every = tuple(s for group in groups if not group.first for s in group.sentences)
    print("| texts | sentences | words | grade | without names, figures | longest sentence |")
    print("|---|---|---|---|---|---|")
    for group in [*groups, Group("all but the first", every)]:
        lengths = [len(s.split()) for s in group.sentences]
        print(f"| {group.name} | {len(lengths):,} | {sum(lengths):,} | "
              f"{grade(group.sentences):.1f} | {grade(group.sentences, words=True):.1f} | "
              f"{max(lengths)} words |")  # fmt: skip
    for group in groups if worst else []:
        print(f"\n{group.name}")
        for one in sorted(group.sentences, key=lambda s: -grade((s,)))[:worst]:
            print(f"  {len(one.split()):3d} {grade((one,)):5.1f}  {one}")


if __name__ == "__main__":
    main()
