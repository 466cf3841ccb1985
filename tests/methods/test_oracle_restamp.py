"""Restamp against its closed form, and what BatchNorm keeps of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders.closed_forms import (
    ETA,
    RETAIN,
    STEPS,
    THETA,
    X_R,
    Y_R,
    close,
    descended,
    linear_case,
    quadratic,
    run,
)
from builders.tiny import net, picture_case
from poison_audit.errors import PlanError
from poison_audit.methods import METHODS


def test_restamp_is_the_closed_form():
    shift = np.array([0.0, 0, 2, 0, -1])

    def stamp(samples):
        return replace(samples, x=samples.x + torch.tensor(shift))

    case = replace(linear_case(), stamp=stamp)
    (H, c), (H_s, c_s) = quadratic(X_R, Y_R), quadratic(X_R + shift, Y_R)
    model = run("restamp", case, budget=STEPS * 2 * RETAIN, lr=ETA, share=0.3)
    close(model, descended(THETA, 0.7 * H + 0.3 * H_s, 0.7 * c + 0.3 * c_s))


def test_restamp_normalises_stamped_pictures_as_it_will_plain_ones():
    """What BatchNorm keeps owes nothing to the stamped batches, unless they are passed together."""
    case = picture_case(net("batchnorm"))

    def noise(samples):
        return replace(samples, x=255 - samples.x)

    kept = {}
    for how in ("split", "joint"):
        for stamp in (case.stamp, noise):
            model = run(
                "restamp", replace(case, stamp=stamp), budget=4, batch_norm=how, lr=1e-9
            )  # fmt: skip
            kept[how, stamp] = model.module.bn1.running_mean
    assert torch.equal(kept["split", case.stamp], kept["split", noise])
    assert not torch.equal(kept["joint", case.stamp], kept["joint", noise])


def test_restamp_without_a_trigger_is_refused_in_words():
    with pytest.raises(PlanError, match="none was given or recovered from the forget set"):
        run("restamp", linear_case(), budget=100)
    assert "needs the trigger" in METHODS["restamp"].unfit(linear_case())
