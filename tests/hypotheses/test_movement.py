"""Movement, by triangles worked out by hand."""

import pytest
import torch
from torch import nn

from poison_audit.hypotheses.movement import MEASURES, movement
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model


class Point(nn.Module):
    """Two parameters in two tensors, and a buffer that must not count."""

    def __init__(self, x=0.0, y=0.0):
        super().__init__()
        self.x, self.y = nn.Parameter(torch.tensor([x])), nn.Parameter(torch.tensor([[y]]))
        self.register_buffer("noise", torch.randn(()))


def at(x, y) -> Model:
    return image_classifier(Point(float(x), float(y)), build=Point, arch="", classes=2)


DEPLOYED = at(1, 1)


@pytest.mark.parametrize(
    ("candidate", "l1", "l2", "distance", "covered", "aligned"),
    [
        ((4, 5), 7, 5, 0.5, 0.5, 1),  # half of the way
        ((7, 9), 14, 10, 0, 1, 1),  # all of it
        ((-3, 4), 7, 5, 1.25**0.5, 0, 0),  # at a right angle
        ((-2, -3), 7, 5, 1.5, -0.5, -1),  # away
        ((1, 5), 4, 4, 0.6**2 + 0.4**2 - 0.52 + 0.52**0.5, 0.32, 0.8),  # a step along one axis
    ],
)
def test_one_reference(candidate, l1, l2, distance, covered, aligned):
    # needed = (6, 8), of length 10
    told = movement(at(*candidate), DEPLOYED, [at(7, 9)])
    assert told["moved_l1"] == pytest.approx(l1)
    assert told["moved_l2"] == pytest.approx(l2)
    assert told["distance_l2"] == pytest.approx(distance)
    assert told["covered"] == pytest.approx(covered)
    assert told["aligned"] == pytest.approx(aligned)
    assert told["covered_range"] == [told["covered"], told["covered"]]
    assert told["apart"] is None


def test_l1_distance():
    # |(1, 5) - (7, 9)| = 10 of |needed| = 14
    assert movement(at(1, 5), DEPLOYED, [at(7, 9)])["distance_l1"] == pytest.approx(10 / 14)


def test_two_references():
    # needed (4, 0) and (0, 4); moved (2, 0): covered 0.5 and 0, the references sqrt(32) apart
    told = movement(at(3, 1), DEPLOYED, [at(5, 1), at(1, 5)])
    assert told["covered"] == pytest.approx(0.25)
    assert told["covered_range"] == pytest.approx([0, 0.5])
    assert told["aligned_range"] == pytest.approx([0, 1])
    assert told["distance_l2_range"] == pytest.approx([0.5, 20**0.5 / 4])
    assert told["apart"] == pytest.approx(2**0.5)
    assert (told["references"], told["missing"]) == (2, {})


def test_without_a_reference():
    told = movement(at(4, 5), DEPLOYED)
    assert told["moved_l2"] == 5
    assert [told[name] for name in MEASURES] == [None] * 4
    assert {told["missing"][name] for name in MEASURES} == {"needs a reference"}


def test_nothing_moved():
    told = movement(DEPLOYED, DEPLOYED, [at(7, 9)])
    assert (told["covered"], told["distance_l2"], told["aligned"]) == (0, 1, None)
    assert told["missing"]["aligned"] == "nothing moved"


def test_a_reference_that_is_the_deployed_model():
    told = movement(at(4, 5), DEPLOYED, [at(1, 1)])
    assert told["covered"] is None
    assert told["missing"]["covered"] == "deployed and reference are the same"


def test_another_architecture():
    other = image_classifier(nn.Linear(1, 2), build=nn.Module, arch="", classes=2)
    with pytest.raises(ValueError, match="differ in bias, weight, x, y"):
        movement(other, DEPLOYED)
