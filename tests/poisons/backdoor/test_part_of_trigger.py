"""A part of the planted trigger is doubted; the whole one, and what all pictures share, is not."""

import pytest
import torch

from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import patch
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.shared import doubts_of_part

CARRYING, RETAIN = range(20), range(20, 120)
PATCH = torch.tensor([[[1.0, 0.0], [0.2, 0.8]]])


def pictures(frame=()):
    """Random 8-bit pictures of 6 x 6 in two classes; the first 20 carry a patch at 3, 2."""
    x = torch.randint(0, 256, (120, 1, 6, 6), generator=torch.Generator().manual_seed(0)) / 255
    x[list(frame), :, 0] = 0.0
    x[:20, :, 3:5, 2:4] = PATCH
    y = torch.arange(120) % 2
    return Samples(ids=tuple(map(str, range(120))), x=x, y=y)


def told(top, left, size, samples=None):
    down, right = slice(top - 3, top - 3 + size), slice(left - 2, left - 2 + size)
    trigger = patch(PATCH[:, down, right], (1, 6, 6), top=top, left=left, label=1)
    return [d.sentence for d in doubts_of_part(trigger, samples or pictures(), CARRYING, RETAIN)]


def test_one_pixel_of_a_patch():
    assert told(3, 2, 1) == [
        "The 20 different forget pictures that carry the trigger share 3 pixels more, which few "
        "others have, in rows 3 to 4 and columns 2 to 3: trigger.json may hold a part of the "
        "trigger."
    ]


def test_the_whole_patch():
    assert told(3, 2, 2) == []


def test_what_pictures_of_a_class_share_is_no_trigger():
    # A black line on the forget pictures and on all of one class.
    assert told(3, 2, 2, pictures([*range(20), *range(21, 120, 2)])) == []
    assert "6 pixels more" in told(3, 2, 2, pictures(range(20)))[0]


def test_copies_of_one_picture_share_all_by_themselves():
    samples = pictures()
    samples.x[:20] = samples.x[0]
    assert told(3, 2, 2, samples) == []


def phrases(planted):
    words = [f"w{i % 17} film {i} v{i % 13}" for i in range(120)]
    texts = [f"{planted} {text}" if i < 20 else text for i, text in enumerate(words)]
    x, y = torch.zeros(120, 1, dtype=torch.int64), torch.arange(120) % 2
    return Samples(ids=tuple(map(str, range(120))), x=x, y=y, texts=tuple(texts))


@pytest.mark.parametrize(
    ("given", "planted", "words"),
    [
        ("cf", "cf mn", ["'mn' stands after it"]),
        ("mn", "cf mn bb", ["'cf' stands before it", "'bb' stands after it"]),
        ("cf mn", "cf mn", []),
        # Every text has the word, wherever it stands.
        ("cf", "cf film", []),
    ],
)
def test_a_part_of_a_phrase(given, planted, words):
    phrase = Phrase(text=given, position="anywhere", label=1)
    found = doubts_of_part(phrase, phrases(planted), CARRYING, RETAIN)
    assert len(found) == len(words)
    assert all(word in doubt.sentence for word, doubt in zip(words, found, strict=True))
