"""Pictures on disk, and what is wrong with a table of them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from poison_audit.case.tables import read_table
from poison_audit.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)  # (n, h, w, c)
GRAY = RNG.integers(0, 256, (4, 5, 6), dtype=np.uint8)


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def problems(path, **options):
    with pytest.raises(InputError) as caught:
        read_table(path, **options)
    return [str(problem) for problem in caught.value.problems]


def assert_colour(samples, order=(0, 1, 2, 3)):
    assert samples.x.dtype == torch.uint8
    # Pixel by pixel: the channel comes first in Samples, last in a picture.
    for place, i in enumerate(order):
        for c in range(3):
            assert samples.x[place, c].tolist() == COLOUR[i, :, :, c].tolist()
