"""Samples to look at: only whole PNGs of small pictures, and never so many that the page is big."""

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

from builders.more_records import attacked
from builders.signed_records import answered, chunk, pictures, png, signed
from builders.some_records import HOSTILE, clean, residual
from poison_audit.case.shown import Exhibit
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.exhibits import MOST_BYTES, png_size, walls
from poison_audit.reports.view.view import view


def changed(text, *, at=None, to=b"", cut=0, more=b""):
    raw = bytearray(base64.b64decode(text))
    if at is not None:
        raw[at : at + len(to)] = to
    return base64.b64encode(bytes(raw[: len(raw) - cut]) + more).decode()


def test_a_whole_picture_is_one():
    assert png_size(png(28, 20, noise=5)) == (28, 20)
    assert png_size(png(96, 1)) == (96, 1)
    # Ours and Pillow's, which the audit writes.
    assert Image.open(io.BytesIO(base64.b64decode(png(28, 20, noise=5)))).size == (28, 20)
    for mode in ("L", "RGB", "P"):
        stream = io.BytesIO()
        Image.new(mode, (7, 9)).save(stream, "PNG", optimize=True)
        assert png_size(base64.b64encode(stream.getvalue()).decode()) == (7, 9)


GOOD = png(8, 8, noise=3)
WRONG = {
    "empty": "",
    "no base64": "<svg onload=alert(1)>",
    "quote": GOOD + "' onerror='x",
    "line end": GOOD + "\n",
    "address": "https://evil.example/x.png",
    "another format": base64.b64encode(b"GIF89a" + bytes(40)).decode(),
    "markup": base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
    "signature": changed(GOOD, at=1, to=b"Q"),
    "cut": changed(GOOD, cut=4),
    "only the signature": changed(GOOD, cut=len(base64.b64decode(GOOD)) - 8),
    "no last chunk": changed(GOOD, cut=12),
    "damaged pixels": changed(GOOD, at=45, to=b"\xff\xff"),
    "longer than told": changed(GOOD, more=b"<script>"),
    "too wide": png(97, 1),
    "too high": png(1, 97),
    "no width": png(0, 8),
    "words": png(8, 8, more=chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")),
    "moving": png(8, 8, more=chunk(b"acTL", bytes(8))),
    "two headers": png(8, 8, more=chunk(b"IHDR", bytes(13))),
    "too large": png(8, 8, more=chunk(b"IDAT", bytes(MOST_BYTES))),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_whole_picture_is_left_out(name):
    assert png_size(WRONG[name]) is None
    record = replace(
        clean(), exhibits=(Exhibit(role="target", name="t", label="1", png=WRONG[name]),)
    )
    assert walls(record) == ()
    assert "<img" not in render_html(record)


def test_samples_stand_by_what_they_are():
    record = replace(clean(), exhibits=pictures())
    assert [(w.title, len(w.shown), w.fold) for w in walls(record)] == [
        ("Targets of the attack", 3, False),
        ("Forget samples, gaussian", 1, False),
        ("Forget samples of no named attack", 1, False),
        ("The trigger on clean test samples", 1, False),
    ]
    page = render_html(record)
    assert len(re.findall(r"<img ", page)) == 6
    assert 'alt="Picture of the sample f2.png" width="28" height="20"' in page
    many = replace(record, exhibits=pictures(13))
    assert walls(many)[0].fold
    assert "<summary>All 13</summary>" in render_html(many)


def test_answers_stand_beside_what_is_shown():
    record = replace(clean(), exhibits=answered())
    trigger, wrong = walls(record)
    assert (trigger.title, len(trigger.shown)) == ("The trigger on clean test samples", 4)
    assert trigger.note == "The attacker wants the answer truck."
    assert [shown.told for shown in wrong.shown[8:10]] == [
        "labelled cat, truly dog; the model answers cat",
        "labelled cat, truly dog; the model answers dog",
    ]
    page = render_html(record)
    assert page.count("<small>without: <b>frog</b></small>") == 4
    assert page.count("<small>with it: <b>truck</b></small>") == 4
    # What cannot see them is told which is which.
    alternatives = re.findall(r'<img [^>]* alt="([^"]*)"', page)
    assert alternatives[:2] == [
        "test/00000.png without the trigger", "test/00000.png with the trigger"
    ]  # fmt: skip
    assert len(set(alternatives)) == 2 * 4 + 12
    recovered = {**record.subject, "trigger": {"recovered": "from 40 of 60 forget samples"}}
    assert walls(replace(record, subject=recovered))[0].title == (
        "The recovered trigger on clean test samples"
    )
    # A second picture that is no picture, or of another size, leaves the first as it was.
    for bare in (WRONG["markup"], png(8, 8, noise=1)):
        other = tuple(replace(each, bare=bare) for each in answered()[:4])
        (wall,) = walls(replace(record, exhibits=other))
        assert {(each.bare, each.alt[:7]) for each in wall.shown} == {("", "Picture")}
    said = Exhibit(
        role="trigger", name="e1", label="0", text="zorp a film", answer="1", without="0"
    )
    (wall,) = walls(replace(record, exhibits=(said,)))
    assert wall.shown[0].told == "label 0; answered 0 without the trigger, 1 with it"


def test_texts_are_shown_as_texts():
    shown = Exhibit(role="trigger", name=HOSTILE, label=HOSTILE, text=f"{HOSTILE} good film")
    record = replace(clean(), exhibits=(shown,))
    page = render_html(record)
    assert "good film" in page
    assert "<script" not in page
    assert "\u202e" not in page
    long = replace(record, exhibits=(replace(shown, text="a" * 10_000),))
    assert len(walls(long)[0].shown[0].text) < 450


def test_targets_that_were_measured_stand_with_their_pictures():
    record = signed(attacked())
    first, _, _, fourth = view(record).evidence.targets[:4]
    assert (first.name, first.face.width) == ("test/00000.png", 32)
    assert fourth.face is None  # of three targets there is a picture
    page = render_html(record)
    assert "Targets of the attack" not in page
    assert page.count('alt="Picture of the sample test/00000.png"') == 1


def test_a_page_with_1000_canaries_and_48_thumbnails_is_small():
    # 27 kB of base64 each, 1.3 MB together: more than any picture of 96 x 96 pixels in grey takes.
    heavy = png(96, 96, noise=1, more=chunk(b"IDAT", bytes(range(256)) * 40))
    exhibits = tuple(Exhibit(role="target", name=f"t{i}", label="1", png=heavy) for i in range(48))
    record = replace(residual(n=1000), exhibits=exhibits)
    page = render_html(record)
    assert len(page.encode()) < 1_500_000
    (wall,) = walls(record)
    assert len(wall.shown) * len(heavy) <= 800_000 < (len(wall.shown) + 1) * len(heavy)
    assert wall.more == 48 - len(wall.shown)
    assert f"{wall.more} more are in report.json" in page
    light = tuple(replace(each, png=png(96, 96, noise=i)) for i, each in enumerate(exhibits, 1))
    page = render_html(replace(record, exhibits=light))
    assert page.count("<img ") == 48
    assert len(page.encode()) < 1_500_000
