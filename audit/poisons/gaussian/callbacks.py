"""Callbacks of other people's trainers, which look at canaries after every epoch.

Each library is imported only when its callback is asked for: neither is needed here.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poison_audit.poisons.gaussian.watching import Watch


def figures(watch: Watch) -> dict[str, float]:
    """Look, and return what is logged: what could be measured."""
    seen = asdict(watch())
    told = {f"canaries/{name}": seen[name] for name in ("mu", "exposure")}
    return {name: figure for name, figure in told.items() if figure is not None}


def for_trainer(watch: Watch) -> Any:
    """Return a TrainerCallback; its figures stand in the trainer's log history, too."""
    from transformers import TrainerCallback

    class Look(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            state.log_history.append({"epoch": state.epoch, **figures(watch)})

    return Look()


def for_lightning(watch: Watch) -> Any:
    """Return a Callback, of whichever of Lightning's two packages is installed."""
    try:
        from lightning.pytorch.callbacks import Callback
    except ModuleNotFoundError:
        from pytorch_lightning.callbacks import Callback  # type: ignore[assignment, unused-ignore]

    class Look(Callback):  # type: ignore[misc, unused-ignore]
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log_dict(figures(watch))

    return Look()
