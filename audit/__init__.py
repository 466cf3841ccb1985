"""poison-audit: does a deployed model still carry the poison it was trained on?

>>> import poison_audit as pa
>>> pa.InputError.__name__  # everything else is imported once somebody asks for it
'InputError'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poison_audit.commands.api import audit as audit
    from poison_audit.commands.api import probe as probe
    from poison_audit.commands.api_making import Planted as Planted
    from poison_audit.commands.api_making import Repaired as Repaired
    from poison_audit.commands.api_making import plant as plant
    from poison_audit.commands.api_making import repair as repair
    from poison_audit.commands.api_making import unlearn as unlearn
    from poison_audit.commands.result import AuditRecord as AuditRecord
    from poison_audit.commands.result import read as read
    from poison_audit.engine.run import Progress as Progress
    from poison_audit.errors import InputError as InputError
    from poison_audit.poisons.gaussian.hook import WithCanaries as WithCanaries
    from poison_audit.poisons.gaussian.hook import with_canaries as with_canaries
    from poison_audit.poisons.gaussian.watching import Seen as Seen
    from poison_audit.poisons.gaussian.watching import Watch as Watch
    from poison_audit.poisons.gaussian.watching import watch as watch

__version__ = "0.1.0"

_AT = {
    "AuditRecord": "commands.result",
    "InputError": "errors",
    "Planted": "commands.api_making",
    "Progress": "engine.run",
    "Repaired": "commands.api_making",
    "Seen": "poisons.gaussian.watching",
    "Watch": "poisons.gaussian.watching",
    "WithCanaries": "poisons.gaussian.hook",
    "audit": "commands.api",
    "plant": "commands.api_making",
    "probe": "commands.api",
    "read": "commands.result",
    "repair": "commands.api_making",
    "unlearn": "commands.api_making",
    "watch": "poisons.gaussian.watching",
    "with_canaries": "poisons.gaussian.hook",
}
__all__ = [
    "AuditRecord", "InputError", "Planted", "Progress", "Repaired", "Seen", "Watch",
    "WithCanaries", "audit", "plant", "probe", "read", "repair", "unlearn", "watch",
    "with_canaries",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes seconds, and many who import this need none."""
    if name not in _AT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_AT[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
