"""Draw the picture at the top of the README: the answer of a report, and its first two charts.

    python tests/measurements/picture.py REPORT.html [reports/page.png]

REPORT.html is that of the README's first command, which audits fixtures/digits. Chromium shows it
at twice the usual resolution; what stands between the answer and the charts is left out. The
picture has 128 colours, so that it stays small.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from builders.browser import browser

PICTURE = Path(__file__).parents[2] / "reports/page.png"
WIDTH = 960
"""Of the page, in CSS pixels."""
COLOURS = 128
MOST_BYTES = 200_000
ONLY = """
body { font-family: "Liberation Sans", Arial, sans-serif; padding-bottom: 0.5rem; }
nav, footer, .wide, #candidates, figure:nth-of-type(n + 3),
section:not(.verdict, :has(#bands)) { display: none; }
h3 { margin-top: 0; }
"""
"""Style that leaves the answer and the charts that hold figures against the tolerance."""


def main() -> None:
    """Write the picture."""
    report = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE
    with browser() as started:
        window = {"width": WIDTH, "height": 400}
        page = started.new_page(viewport=window, device_scale_factor=2, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.add_style_tag(content=ONLY)
        shot = page.screenshot(full_page=True)
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(out, optimize=True)
    size = out.stat().st_size
    print(f"{out}: {picture.width} x {picture.height}, {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"larger than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
