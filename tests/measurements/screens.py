"""Draw the reports that people meet, to be looked at: screens of a phone and a desk, dark, and A4.

    npm install --prefix tests --no-package-lock
    python tests/measurements/screens.py OUT [SITUATION ...]

Writes, for each situation of `builders.situations`, the page, its first screen at 390 and
1280 pixels, the whole page at both, the same in the dark, and the PDF. It prints how many screens
and sheets each is, and what axe-core finds wrong, and ends with 1 where it finds anything or a page
is longer than five sheets.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from builders import browser as chromium
from builders.situations import SITUATIONS
from poison_audit.reports.page.html import render_html

WIDTHS = {390: 844, 1280: 800}
"""Height of a window by its width."""
MOST_SHEETS = 5


def main() -> None:
    """Write the pictures, print the table."""
    out, asked = Path(sys.argv[1]), sys.argv[2:]
    wrong = 0
    print("| situation | screens at 390 | screens at 1280 | sheets of A4 | axe-core |")
    print("|---|---|---|---|---|")
    with chromium.browser() as started:
        for name, make in SITUATIONS.items():
            if asked and not any(word in name for word in asked):
                continue
            folder = out / re.sub(r"\W+", "-", name)
            folder.mkdir(parents=True, exist_ok=True)
            page = folder / "report.html"
            page.write_text(render_html(make()), encoding="utf-8")
            screens = [_screens(started, page, width) for width in WIDTHS]
            sheets, found = _sheets(started, page), _violations(started, page)
            wrong += len(found) + (sheets > MOST_SHEETS)
            print(f"| {name} | {screens[0]:.1f} | {screens[1]:.1f} | {sheets} | {len(found)} |")
            print("\n".join(found), end="\n" * bool(found))
    sys.exit(wrong > 0)


def _screens(started: Any, page: Path, width: int) -> float:
    """Write the screenshots of one width, and return how many screens long the page is."""
    for dark in (False, True):
        with chromium.opened(started, page, width=width, dark=dark) as seen:
            seen.page.set_viewport_size({"width": width, "height": WIDTHS[width]})
            name = f"{width}{'-dark' * dark}"
            seen.page.screenshot(path=page.parent / f"{name}-first.png")
            seen.page.screenshot(path=page.parent / f"{name}.png", full_page=True)
            height: int = seen.page.evaluate("() => document.documentElement.scrollHeight")
    return height / WIDTHS[width]


def _sheets(started: Any, page: Path) -> int:
    """Write the PDF, and return its number of sheets."""
    with chromium.opened(started, page, width=1280) as seen:
        written: bytes = seen.page.pdf(
            path=page.parent / "report.pdf", format="A4", prefer_css_page_size=True
        )
    return len(re.findall(rb"/Type\s*/Page\b", written))


def _violations(started: Any, page: Path) -> list[str]:
    found = []
    for width, dark in ((390, False), (1280, True)):
        with chromium.opened(started, page, width=width, dark=dark) as seen:
            found += chromium.violations(seen.page)
    return found


if __name__ == "__main__":
    main()
