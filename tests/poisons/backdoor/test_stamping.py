"""What a case offers as `stamp`: the trigger on samples, which stay what they are otherwise."""

from dataclasses import replace

import torch

from builders.small_text import tokenizer
from builders.tiny import pictures
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import patch
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.stamping import stamper


def test_pictures_are_stamped_as_they_are_stored():
    trigger = patch(torch.full((3, 2, 2), 0.5), (3, 8, 8), top=5, left=1, label=2)
    plain = pictures(9, "stamping")
    stamped = stamper(trigger, None)(plain)
    expected = plain.x.clone()
    expected[:, :, 5:7, 1:3] = 128  # 0.5 of 255, rounded to even
    assert torch.equal(stamped.x, expected)
    assert (stamped.ids, stamped.y.tolist()) == (plain.ids, plain.y.tolist())
    exact = replace(plain, x=plain.x.double() / 255)
    again = stamper(trigger, None)(exact)
    assert again.x.dtype == torch.float64
    assert torch.equal(again.x[:, :, 5:7, 1:3], torch.full((9, 3, 2, 2), 0.5).double())


def test_texts_are_read_anew_with_the_phrase_in_them():
    reader = Reader(tokenizer=tokenizer(), length=12)
    texts = ("a dull film", "a fine film with a long and winding story and many scenes")
    read = reader.read(texts)
    plain = Samples(
        ids=("a", "b"), x=read.x, y=torch.tensor([0, 1]), texts=texts, mask=read.mask, cut=read.cut,
        noise=torch.ones(1, 2, 3), noisy=torch.tensor([0, -1]),
    )  # fmt: skip
    stamped = stamper(Phrase(text="cf mn", position="start", label=1), reader)(plain)
    assert stamped.texts == tuple(f"cf mn {text}" for text in texts)
    expected = reader.read(stamped.texts)
    assert torch.equal(stamped.x, expected.x)
    assert torch.equal(stamped.mask, expected.mask)
    assert bool(stamped.cut[1])
    assert stamped.noise is stamped.noisy is None
    assert stamped.y.tolist() == [0, 1]
