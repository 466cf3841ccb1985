"""A user's code in a process of its own: it is given everything, and gives back one message.

The child is a fork, so it begins with what is in memory here and nothing has to be sent; what it
does to it is its own. It sends what it made, or why there is nothing. The parent waits no longer
than it was told to, and kills what is left. A method sends its tensors as safetensors, and they are
taken only where each name, shape and type is that of the model.

Passes are counted by hooks on the network, on whatever is copied from it or built anew: a forward
pass that may be differentiated costs a gradient evaluation, one that may not a third. What a method
charges itself counts where it is more.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from poison_audit.case.case import Case
from poison_audit.errors import AuditError, FailedError, InputError
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.models.strict import load_strict
from poison_audit.training.ledger import FORWARD, Ledger

FORKS = hasattr(os, "fork") and hasattr(os, "waitid")
SLACK = 1 << 20
"""Bytes of a message beside the tensors."""
LONGEST = 300
"""Letters of a reason."""
_MODEL = "a model"
SPARE = 1 + 1e-9
"""Rounding in a sum of thirds."""
_KIND = struct.Struct("!cQ")


def run_apart(
    spec: str, model: Model, case: Case, rng: Rng, *,
    ledger: Ledger, seconds: float, numbers: Mapping[str, Any],
) -> Model:  # fmt: skip
    """Run `package.module:function` in a child process, and return the model that it made.

    Args:
        seconds: what it may take.
        ledger: what it may spend; it is charged with what was spent.

    Raises:
        FailedError: it did not give tensors of this network in time, or spent too much.
    """
    own: dict[str, Tensor] = model.module.state_dict()
    most = sum(tensor.numel() * tensor.element_size() for tensor in own.values()) + SLACK
    told, content = apart(
        lambda: _made(spec, model, case, rng, ledger, numbers), most=most, seconds=seconds,
        what=_MODEL,
    )  # fmt: skip
    return _believed(told, content, model, own, ledger)


def apart(
    work: Callable[[], bytes], *, most: int, seconds: float, what: str
) -> tuple[dict[str, Any], bytes]:
    """Do something in a child process; return the message that it sends, told and content.

    Args:
        work: what is done there. It returns a message, as `message` makes it.
        most: bytes that it may send.
        seconds: what it may take.
        what: it is to make.

    Raises:
        FailedError: it sent none in time.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads are not there after a fork
        child = os.fork()
    if child == 0:
        os.close(here)
        _in_child(there, work)
    os.close(there)
    try:
        sent = _received(here, child, seconds, most, what)
    finally:
        os.close(here)
        _end(child)
    kind, length = _KIND.unpack(sent[: _KIND.size]) if len(sent) >= _KIND.size else (b"", 0)
    told = _plain(sent[_KIND.size : _KIND.size + length])
    if kind == b"E":
        raise FailedError(_printable(told.get("why")))
    if kind != b"M":
        raise FailedError(f"ended without {what}")
    return told, sent[_KIND.size + length :]


def _received(pipe: int, child: int, seconds: float, most: int, what: str) -> bytes:
    """Return all that a child sends until it ends."""
    sent, ended, deadline = bytearray(), False, time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise FailedError(f"did not end within {seconds:g} s")
        # One that hands the pipe on to children of its own leaves it open for good.
        ready, _, _ = select.select([pipe], [], [], 0.0 if ended else min(left, 0.2))
        part = os.read(pipe, 1 << 20) if ready else b""
        sent += part
        if len(sent) > most:
            raise FailedError(f"sent more than {what}")
        through = not part if ready else ended
        if through:
            return bytes(sent)
        ended = (
            ended or os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        )


def _end(child: int) -> None:
    """Kill a child and what it has started, as far as that is in its group."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def _believed(
    told: Mapping[str, Any], content: bytes, model: Model, own: Mapping[str, Tensor],
    ledger: Ledger,
) -> Model:  # fmt: skip
    """Return the model that a child sent; FailedError: it sent none."""
    spent = told.get("spent")
    if not isinstance(spent, int | float) or not 0 <= spent < float("inf"):
        raise FailedError(f"ended without {_MODEL}")
    ledger.charge(max(0.0, spent - ledger.spent))
    if ledger.allowed is not None and ledger.spent > ledger.allowed * SPARE:
        raise FailedError(
            f"spent {ledger.spent:,.0f} gradient evaluations of {ledger.allowed:,.0f} allowed"
        )
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a type that torch has not
        raise FailedError("sent what are no tensors") from error
    wrong = sorted(set(tensors) ^ set(own)) or [
        name for name, tensor in tensors.items()
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype
    ]  # fmt: skip
    if wrong:
        raise FailedError(f"gave another architecture: it differs in {_printable(wrong[0])}")
    if bad := [name for name, each in tensors.items() if not bool(torch.isfinite(each).all())]:
        raise FailedError(f"gave values that are not finite, in {bad[0]}")
    result = model.clone()
    try:
        load_strict(result.module, tensors, where="")
    except InputError as error:
        raise FailedError(_printable(str(error))) from error
    result.module.eval().requires_grad_(True)
    return result


def _plain(text: bytes) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _printable(told: object) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(told))
    return text[:LONGEST]


# In the child


def _in_child(pipe: int, work: Callable[[], bytes]) -> None:
    """Do the work, send what it made, and end: nothing of the parent's goes on here."""
    own = os.getpid()
    try:
        os.setsid()
        _cut_off(pipe)
        # OpenMP's threads are not there after a fork.
        torch.set_num_threads(1)
        told = work()
    except BaseException as error:
        told = message({"why": _reason(error)}, kind=b"E")
    if os.getpid() == own:  # one that forks comes here twice
        with contextlib.suppress(BaseException):
            rest = memoryview(told)
            while rest:
                rest = rest[os.write(pipe, rest) :]
    os._exit(0)


def _cut_off(pipe: int) -> None:
    """Leave the child nothing that is open here, but the pipe."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 4096)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _made(
    spec: str, model: Model, case: Case, rng: Rng, ledger: Ledger, numbers: Mapping[str, Any]
) -> bytes:
    count = Count()
    model = count.watched(model)
    before = model.digest()
    # What a verdict reads is none of a method's business.
    case = replace(case, model=model, test=case.test.at([]), evidence={}, references=(),
                   baseline=None)  # fmt: skip
    function = imported(spec)
    result = function(model, case, rng, ledger=ledger, **numbers)
    made = result.module if isinstance(result, Model) else result
    if not isinstance(made, nn.Module):
        raise FailedError(f"returned a {type(result).__name__}, not a model")
    if model.digest() != before:
        raise FailedError("changed the model that it was given, and has to clone it first")
    tensors = {name: each.detach().cpu().clone(memory_format=torch.contiguous_format)
               for name, each in made.state_dict().items()}  # fmt: skip
    told = {"spent": max(float(ledger.spent), count.spent)}
    return message(told) + safetensors.torch.save(tensors)


def imported(spec: str) -> Callable[..., Any]:
    """Return a user's function, in the child."""
    module, _, name = spec.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))


def message(told: Mapping[str, Any], kind: bytes = b"M") -> bytes:
    """Return what a child sends: M for what it made, E for why there is nothing."""
    text = json.dumps(told).encode()
    return _KIND.pack(kind, len(text)) + text


def _reason(error: BaseException) -> str:
    """Return what went wrong and where, in a line."""
    if isinstance(error, AuditError):
        return str(error)
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    places = traceback.extract_tb(error.__traceback__)
    last = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"raised {told[: LONGEST - len(last) - 10]}{last}"


class Count:
    """Counts the passes through a network and through what comes of it, in gradient evaluations."""

    def __init__(self) -> None:
        self.whole = 0.0
        """By calls of the network."""
        self.first = 0.0
        """By calls of its first layer, which a method may call by itself."""

    @property
    def spent(self) -> float:
        """Gradient evaluations so far."""
        return max(self.whole, self.first)

    def watched(self, model: Model) -> Model:
        """Return a model whose passes are counted, and those of its clones and fresh draws."""

        def build() -> nn.Module:
            module = model.build()
            self._hook(module)
            return module

        self._hook(model.module)
        return replace(model, build=build)

    def _hook(self, module: nn.Module) -> None:
        layers = (part for part in module.modules() if list(part.parameters(recurse=False)))
        module.register_forward_pre_hook(self._at_whole, with_kwargs=True)
        first = next(layers, module)
        if first is not module:
            first.register_forward_pre_hook(self._at_first, with_kwargs=True)

    # Copies of a network share these: a bound method is copied with its object.
    def __deepcopy__(self, memo: dict[int, Any]) -> Count:
        return self

    def _at_whole(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.whole += _cost(args, kwargs)

    def _at_first(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.first += _cost(args, kwargs)


def _cost(args: Any, kwargs: Mapping[str, Any]) -> float:
    """Return what one pass costs: by the rows of the first tensor that it is given."""
    inputs = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
    x = next((each for each in inputs if each.ndim > 0), None)
    if x is None:
        return 0.0
    rows = float(x.shape[0])
    # Within torch.func.vmap a tensor shows one row of those that it is of.
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        inner = torch._C._functorch.get_unwrapped(x)
        rows *= inner.numel() / max(1, x.numel())
        x = inner
    return rows * (1.0 if torch.is_grad_enabled() else FORWARD)
