"""How a method's steps differ from the training recipe's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from poison_audit.records import Recipe
from poison_audit.training.loop import recipe_settings

Optimizer = Literal["recipe", "sgd", "nesterov", "adamw"]
"""`recipe`: as the model was trained; `nesterov`: SGD whose momentum looks ahead."""
Schedule = Literal["constant", "cosine", "onecycle"]
"""Of the rate, over the steps of a descent."""
Form = Literal["ascent", "bounded"]
"""How the forget samples' labels are left: by ascent on the cross-entropy, which has no bound and
no gradient where p = 1; or by descent on -log(1 - p), which ends at 0 and has it there."""


def adapted(
    recipe: Recipe,
    *,
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with these settings in place of its own, and its optimiser for `descend`.

    Args:
        recipe: how the model was trained.
        optimizer: of the steps.
        momentum: of SGD; None: the recipe's.
        weight_decay: an l2 penalty for SGD, decoupled for AdamW; None: the recipe's.
        batch_size: None: the recipe's.
    """
    asked = {"momentum": momentum, "weight_decay": weight_decay, "batch_size": batch_size}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if optimizer != "recipe":
        given["optimizer"] = "sgd" if optimizer == "nesterov" else optimizer
        given["nesterov"] = optimizer == "nesterov"
    own = replace(recipe, **given)
    return own, recipe_settings(own)
