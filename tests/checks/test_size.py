"""Of what size were the pictures that training saw? Where nothing tells, the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from builders.small_case import FLAGS
from poison_audit.cli import invoke
from poison_audit.models.fit import takes_any_size
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Batch

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "-q", "--out", "o"]
pytestmark = pytest.mark.usefixtures("plain_page")


@pytest.mark.parametrize(
    ("net", "any_size"),
    [
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), True),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), False),
    ],
)
def test_what_pools_takes_any_size_and_what_is_flattened_takes_one(net, any_size):
    model = image_classifier(
        net, build=lambda: net, arch="net", classes=2, normalize=((0.0,), (1.0,))
    )
    batch = Batch(x=torch.rand(1, 3, 8, 8), y=torch.zeros(1, dtype=torch.int64))
    assert takes_any_size(model, batch) is any_size


def test_a_size_that_nobody_said_is_a_limit(case):
    assert invoke(PROBE) in (1, 3)
    (told,) = [each for each in json.loads(Path("o/report.json").read_text("utf-8"))["limits"]
               if "--expect-size" in each]  # fmt: skip
    assert "made smaller may lose a trigger" in told
    assert invoke([*PROBE[:-1], "p", "--expect-size", "8"]) in (1, 3)
    assert "--expect-size" not in str(
        json.loads(Path("p/report.json").read_text("utf-8"))["limits"]
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [("32", "training's pictures were of 32, and those in the tables are of 8x8"),
     ("8x9", "were of 8x9"), ("0", "is no size: '0'"), ("large", "is no size: 'large'")],
)  # fmt: skip
def test_another_size_is_refused(case, capsys, said, told):
    assert invoke([*PROBE, "--expect-size", said]) == 2
    assert told in capsys.readouterr().err
