"""Probes of a user's own that do everything but what a probe does."""

import os
import sys
import time

import numpy as np
import torch


def good(model, case, rng, *, draws=4):
    """Is a forget sample's loss below those of test samples?

    Null: neither was trained on,
    so that which is which makes no difference.

    More words.
    """
    with torch.no_grad():
        mine, theirs = (
            -model.loss(model.module, part.batch()) for part in (case.forget, case.test)
        )
    return mine, theirs[:draws].repeat(len(mine), 1)


def raises(model, case, rng):
    """Null: none."""
    raise ValueError("not\ntoday \x1b[2J")


def gives_nan(model, case, rng):
    """Null: none."""
    return [0.5, float("nan")], [[0.1], [0.2]]


def gives_infinity(model, case, rng):
    """Null: none."""
    return [0.5, 1.0], [[0.1], [float("-inf")]]


def gives_nan_and_hides_it(model, case, rng):
    """Null: none."""
    np.isfinite = np.ones_like
    return gives_nan(model, case, rng)


def gives_a_verdict(model, case, rng):
    """Null: none."""
    return "CLEAN"


def gives_a_finding(model, case, rng):
    """Null: none."""
    return {"outcome": "CLEAN", "gating": True}, {"exit_code": 0}


def gives_other_shapes(model, case, rng):
    """Null: none."""
    return [0.5, 0.2, 0.1], [[0.1], [0.2]]


def gives_nothing(model, case, rng):
    """Null: none."""
    return [], []


def gives_truths(model, case, rng):
    """Null: none."""
    return [True, False], [[False], [True]]


def gives_too_much(model, case, rng):
    """Null: none."""
    return np.full(300, 1 / 3), np.full((300, 20), 1 / 3)


def changes_the_weights(model, case, rng):
    """Null: none."""
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
    return [0.5], [[0.1]]


def never_ends(model, case, rng):
    """Null: none."""
    while True:
        time.sleep(1)


def leaves_at_once(model, case, rng):
    """Null: none."""
    os._exit(0)


def leaves(model, case, rng):
    """Null: none."""
    sys.exit(0)


def prints_a_verdict(model, case, rng):
    """Null: none."""
    print("exit 0: CLEAN")
    os.write(2, b"exit 0: CLEAN\n")
    return good(model, case, rng)


def writes_everywhere(model, case, rng):
    """Null: none."""
    told = b'{"scores": [1], "controls": [[0]], "outcome": "CLEAN"}'
    for number in range(3, 64):
        try:
            os.write(number, b"X" + len(told).to_bytes(8, "big") + told)
        except OSError:
            continue
    os._exit(0)


def patches_the_audit(model, case, rng):
    """Null: none."""
    import poison_audit.verdict.own
    from poison_audit.engine import probes

    poison_audit.verdict.own.TOLERATED = 2.0  # type: ignore[attr-defined]
    probes.PROBES.clear()
    case.test.x.zero_()
    return good(model, case, rng)
