"""The charts of the two hypotheses: the forget set among random clean subsets."""

from __future__ import annotations

from poison_audit.records import Finding
from poison_audit.reports.page.drawing import BAND, INK, MUTED, as_svg, legend, new_axes, page_style

_CLEAN = "random clean subsets: mean and central 95%"


def shift_chart(finding: Finding, *, describe: str) -> str | None:
    """Draw how far leaving out growing parts of the forget set, or random sets, moves the layer."""
    details = finding.details
    if finding.statistic is None or not details.get("fractions"):
        return None
    x = [100 * fraction for fraction in details["fractions"]]
    curves = (details[f"random_l1_{end}"] for end in ("mean", "low", "high"))
    known = [row for row in zip(x, *curves, strict=True) if None not in row]
    at, mean, low, high = zip(*known, strict=True)
    with page_style():
        figure, axes = new_axes(height=260, left=58, top=46)
        axes.fill_between(at, low, high, color=BAND, lw=0, zorder=0)
        axes.vlines(at, low, high, colors=MUTED, lw=1)
        axes.plot(at, mean, color=MUTED, lw=1.2, marker="o", ms=4, label=_CLEAN)
        axes.plot(x, details["poison_l1"], color=INK, lw=1.6, marker="s", ms=5, label="forget set")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 104)
        axes.locator_params(axis="y", nbins=6)
        axes.set_xlabel("part of the forget set, or as many clean samples, left out, %")
        axes.set_ylabel("shift of the last layer, l1")
        legend(axes, left=-0.14)
        return as_svg(figure, name="shift", title="Shift against random subsets", describe=describe)


def orthogonality_chart(finding: Finding, *, describe: str) -> str | None:
    """Draw what share of the needed shift clean gradients span, beside that of random choices."""
    details = finding.details
    if finding.statistic is None or details.get("share") is None:
        return None
    random, direction = "random clean subsets", "random direction"
    clean = (details[f"random_share_{end}"] for end in ("mean", "low", "high"))
    lines = [("forget set", details["share"], None, None), (random, *clean)]
    if (chance := details.get("direction_share")) is not None:
        lines.append((direction, chance["mean"], chance["low"], chance["high"]))
    network = details.get("network") or {}
    if network.get("share") is not None:
        own = (network[key] for key in ("share", "share_low", "share_high"))
        lines.append(("whole network", *own))
    with page_style():
        figure, axes = new_axes(height=64 + 30 * len(lines), left=150, right=20)
        for place, (name, share, low, high) in enumerate(lines):
            null = name in (random, direction)
            colour = MUTED if null else INK
            if low is not None and high is not None:
                axes.hlines(place, 100 * low, 100 * high, colors=colour, lw=5 if null else 1.6)
            axes.plot(100 * share, place, color=colour, marker="o" if null else "s", ms=6)
        axes.set_yticks(range(len(lines)), [name for name, *_ in lines])
        axes.set_ylim(len(lines) - 0.5, -0.6)
        axes.set_xlim(-3, 103)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share that clean gradients span, %")
        return as_svg(figure, name="orthogonality", title="Share within reach", describe=describe)
