"""Cells through Ray: the lines of an audit's jobs, side by side on other cores, GPUs or machines.

Ray places the work, restarts what died, and nothing else: every line is the same computation as
in one process, on as many threads, and gives the same bits on the same kind of machine. What needs
files, the deployed model's cell and those of models made elsewhere, is measured in this process.

Work travels with its tensors of CUDA marked as such, and each worker puts them on the card that Ray
gave it: its own number for that card is another, and a machine without one is sent models, too.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from poison_audit.engine.cells import Lack, blank
from poison_audit.engine.measuring import Line, Made, Tell, Work
from poison_audit.engine.run import Performer
from poison_audit.errors import InputError, Problem

Done = list[tuple[int, Made]]

RETRIES = 3
"""How often a line is begun again whose worker died."""
PATIENCE = 60.0
"""Seconds without a result, after which it is asked again whether any machine has what it takes."""


@contextmanager
def through_ray(address: str, *, gpus: float | None = None) -> Iterator[Performer]:
    """Give what performs an audit's work through Ray.

    Args:
        address: `local` starts Ray on this machine; else as `ray.init` takes it, such as `auto`.
        gpus: share of a GPU that a line takes; by default 1 where the model is on one, else 0.

    Raises:
        InputError: Ray is not installed, or cannot be reached, or no machine of it has such a
            share. The performer raises it as well: of a model on CUDA, or once such a machine left.
    """
    ray = _load_ray()
    own = not ray.is_initialized()
    if own:
        _start(ray, address)

    if gpus is not None:
        _check_share(ray, gpus, end=ray.shutdown if own else None)

    def perform(work: Work, lines: Sequence[Line], tell: Tell) -> Iterator[tuple[int, Made]]:
        cuda = work.case.model.device.type == "cuda"
        share = (1.0 if cuda else 0.0) if gpus is None else gpus
        if cuda and not share:
            what = "gives its workers no GPU, and the model is on one"
            raise InputError(Problem(what, "--ray-gpus", "Give a share above 0, or --device cpu"))
        _check_share(ray, share)
        remote = ray.remote(num_cpus=1, num_gpus=share, max_retries=RETRIES)(_on)
        everything = ray.put(packed(work))
        away = [line for line in lines if line[0][1].method]
        pending = {remote.remote(everything, line, torch.get_num_threads()): line for line in away}
        for line in lines:
            if line not in away:
                yield from work.on(line, tell)
        while pending:
            ready, _ = ray.wait(list(pending), timeout=PATIENCE)
            if not ready:  # it may be long at work, or wait for a machine that is gone
                _check_share(ray, share)
            for each in ready:
                yield from _result(ray, each, pending.pop(each))

    try:
        yield perform
    finally:
        if own:
            ray.shutdown()


def _on(work: bytes, line: Line, threads: int) -> bytes:
    """Work on one line, in a worker."""
    # Another number of threads adds in another order.
    torch.set_num_threads(threads)
    return packed(list(unpacked(work, "cuda").on(line)))


def packed(value: Any) -> bytes:
    """Return a value as bytes, which remember of each tensor whether it was on CUDA."""
    from ray import cloudpickle

    out = io.BytesIO()
    torch.save(value, out, pickle_module=cloudpickle)
    return out.getvalue()


def unpacked(data: bytes, device: str) -> Any:
    """Return what was packed, what was on CUDA on this device; the rest in main memory."""

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else storage.to(device=device)

    # It is this audit's own, and never from a file.
    return torch.load(io.BytesIO(data), place, pickle_module=pickle, weights_only=False)


def _check_share(ray: Any, share: float, end: Callable[[], object] | None = None) -> None:
    """Refuse a share of GPUs that no machine has: Ray would wait for one for ever."""
    most = max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]),
               default=0.0)  # fmt: skip
    if share <= most:
        return
    if end is not None:
        end()
    what = f"a line takes {share:g} GPUs, and no machine of the cluster has more than {most:g}"
    fix = "Give fewer, 0 with --device cpu, or start Ray where there are GPUs"
    raise InputError(Problem(what, "--ray-gpus", fix))


def _result(ray: Any, ready: Any, line: Line) -> Done:
    try:
        done: Done = unpacked(ray.get(ready), "cpu")
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        lack = Lack.DIED
        reason = f"its worker {lack} {RETRIES + 1} times ({type(error).__name__})"
        return [
            (place, Made(cell=replace(blank(job), error=reason), lack=lack)) for place, job in line
        ]
    return done


def _load_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        fix = "Install it: pip install 'poison-audit[ray]'"
        raise InputError(Problem("needs Ray, which is not installed", "--ray", fix)) from error
    return ray


def _start(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    # A user's own architecture is found where this process finds it.
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        what = f"no Ray cluster at {address!r}: {reason}"
        raise InputError(Problem(what, "--ray", "Give its address, or local")) from error
