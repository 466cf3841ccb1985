"""A real browser for the tests of the page: Chromium, driven by Playwright, with the network shut.

    python tests/builders/browser.py REPORT.html FOLDER

writes screenshots at 390 and 1280 pixels, light and dark, and the PDF, to be looked at.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def missing() -> str:
    """Say why there is no browser; empty where there is one."""
    if executable() is None:
        return "no Chromium: none of CHROMIUM, " + ", ".join(NAMES)
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return ""


def executable() -> str | None:
    """Return the path of a Chromium."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Seen:
    """What a page did while it was open."""

    page: Any
    messages: list[str] = field(default_factory=list)
    """Console messages, errors, dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for, the page itself and data: aside."""


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield started
        started.close()


@contextmanager
def opened(started: Any, file: Path, *, width: int, dark: bool = False) -> Iterator[Seen]:
    """Open a file as a page of this width; every request but for itself is refused and noted."""
    context = started.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
    )
    page = context.new_page()
    seen = Seen(page=page)
    address = file.resolve().as_uri()

    def route(asked: Any) -> None:
        if asked.request.url == address:
            asked.continue_()
        else:
            seen.requests.append(asked.request.url)
            asked.abort()

    def dialog(shown: Any) -> None:
        seen.messages.append(f"dialog: {shown.message}")
        shown.dismiss()

    page.route("**/*", route)
    page.on("console", lambda told: seen.messages.append(told.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))
    page.on("dialog", dialog)
    page.goto(address)
    page.wait_for_load_state("load")
    yield seen
    context.close()


def violations(page: Any) -> list[str]:
    """Return what axe-core finds wrong with a page, a line each."""
    # The page's own policy lets no script in; the browser's debugger may put one there.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", list(RULES)
    )
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def overflow(page: Any) -> int:
    """Return by how many pixels the page is wider than its window."""
    wide: int = page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide


def main() -> None:
    """Write the screenshots and the PDF of a page."""
    file, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with browser() as started:
        for width in (390, 1280):
            for dark in (False, True):
                with opened(started, file, width=width, dark=dark) as seen:
                    name = f"{width}{'-dark' if dark else ''}"
                    seen.page.screenshot(path=out / f"{name}.png", full_page=True)
                    seen.page.screenshot(path=out / f"{name}-first.png")
                    print(name, seen.messages, seen.requests, overflow(seen.page))
        with opened(started, file, width=1280) as seen:
            seen.page.pdf(path=out / "report.pdf", format="A4", prefer_css_page_size=True)


if __name__ == "__main__":
    main()
