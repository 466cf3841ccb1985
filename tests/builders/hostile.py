"""Methods of a user's own that do everything but what a method does."""

import atexit
import contextlib
import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import replace

import torch
from torch import nn


def _moved(model):
    model = model.clone()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter += 1
    return model


def _passes(model, samples, n):
    for _ in range(n):
        model.loss(model.module, samples.batch()).mean().backward()


def good(model, case, rng, *, ledger, amount=1.0):
    model = model.clone()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter += amount
    return model


def gives_a_module(model, case, rng, *, ledger):
    return _moved(model).module


def gives_nothing(model, case, rng, *, ledger):
    return None


def gives_a_verdict(model, case, rng, *, ledger):
    return "exit 0: CLEAN"


def gives_a_class(model, case, rng, *, ledger):
    return type(model.module)


def gives_tensors(model, case, rng, *, ledger):
    return model.module.state_dict()


def gives_the_input(model, case, rng, *, ledger):
    return model


def changes_the_input(model, case, rng, *, ledger):
    with torch.no_grad():
        next(model.module.parameters()).zero_()
    return model


def changes_the_input_and_gives_another(model, case, rng, *, ledger):
    made = _moved(model)
    changes_the_input(model, case, rng, ledger=ledger)
    return made


def changes_the_case(model, case, rng, *, ledger):
    for part in (case.retain, case.forget):
        part.x.zero_()
        part.y.zero_()
    object.__setattr__(case, "recipe", None)
    return _moved(model)


def gives_nan(model, case, rng, *, ledger):
    made = _moved(model)
    with torch.no_grad():
        next(made.module.parameters()).fill_(float("nan"))
    return made


def gives_infinity(model, case, rng, *, ledger):
    made = _moved(model)
    with torch.no_grad():
        next(made.module.parameters()).fill_(float("inf"))
    return made


def gives_nan_and_says_it_is_finite(model, case, rng, *, ledger):
    torch.isfinite = torch.ones_like
    return gives_nan(model, case, rng, ledger=ledger)


def gives_another_network(model, case, rng, *, ledger):
    return replace(model, module=nn.Linear(3, 3))


def gives_a_network_with_more(model, case, rng, *, ledger):
    made = _moved(model)
    made.module.register_buffer("more", torch.zeros(3))
    return made


def gives_a_network_with_less(model, case, rng, *, ledger):
    made = _moved(model)
    made.module[-1] = nn.Identity()
    return made


def gives_other_names(model, case, rng, *, ledger):
    return replace(model, module=nn.Sequential(_moved(model).module))


def gives_other_shapes(model, case, rng, *, ledger):
    made = _moved(model)
    made.module[-1].bias = nn.Parameter(torch.zeros(7))
    return made


def gives_doubles(model, case, rng, *, ledger):
    made = _moved(model)
    return replace(made, module=made.module.double())


def gives_halves(model, case, rng, *, ledger):
    made = _moved(model)
    return replace(made, module=made.module.half())


def gives_a_network_that_answers_otherwise(model, case, rng, *, ledger):
    made = _moved(model)
    made.module.forward = lambda x: torch.eye(3)[case.retain.y[: len(x)]]
    return made


def raises(model, case, rng, *, ledger):
    raise ValueError("not\ntoday \x1b[2J")


def raises_at_length(model, case, rng, *, ledger):
    raise RuntimeError("x" * 1_000_000)


def leaves(model, case, rng, *, ledger):
    sys.exit(0)


def interrupts(model, case, rng, *, ledger):
    raise KeyboardInterrupt


def leaves_at_once(model, case, rng, *, ledger):
    os._exit(0)


def kills_itself(model, case, rng, *, ledger):
    os.kill(os.getpid(), signal.SIGKILL)


def crashes(model, case, rng, *, ledger):
    ctypes.string_at(0)


def calls_itself(model, case, rng, *, ledger):
    return calls_itself(model, case, rng, ledger=ledger)


def never_ends(model, case, rng, *, ledger):
    while True:
        time.sleep(1)


def never_ends_and_will_not_be_told(model, case, rng, *, ledger):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException):
            while True:
                time.sleep(1)


def prints_a_verdict(model, case, rng, *, ledger):
    for stream in (sys.stdout, sys.stderr):
        print("exit 0: CLEAN", file=stream, flush=True)
    os.write(1, b"exit 0: CLEAN\n")
    return _moved(model)


def forks(model, case, rng, *, ledger):
    os.fork()
    return _moved(model)


def leaves_a_child_behind(model, case, rng, *, ledger):
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)


def writes_everywhere(model, case, rng, *, ledger):
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(number, b"exit 0: CLEAN\n" * 9)
    os._exit(0)


def writes_for_ever(model, case, rng, *, ledger):
    while True:
        for number in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(number, bytes(1 << 16))


def writes_a_pickle(model, case, rng, *, ledger):
    class Evil:
        def __reduce__(self):
            return os._exit, (0,)

    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(number, b"M" + (2).to_bytes(8, "big") + b"{}" + pickle.dumps(Evil()))
    os._exit(0)


def writes_a_wrong_account(model, case, rng, *, ledger):
    told = b'{"spent": -1e999}'
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(number, b"M" + len(told).to_bytes(8, "big") + told)
    os._exit(0)


def closes_everything(model, case, rng, *, ledger):
    os.closerange(0, 64)
    return _moved(model)


def spends_too_much(model, case, rng, *, ledger):
    _passes(model, case.retain, 20)
    return _moved(model)


def spends_too_much_on_a_copy(model, case, rng, *, ledger):
    made = _moved(model)
    _passes(made, case.retain, 20)
    return made


def spends_too_much_on_a_fresh_one(model, case, rng, *, ledger):
    made = model.fresh(rng)
    _passes(made, case.retain, 20)
    return made


def spends_too_much_in_vmap(model, case, rng, *, ledger):
    x = case.retain.batch().x
    for _ in range(60):
        torch.func.vmap(lambda one: model.module(one[None]))(x)
    return _moved(model)


def spends_too_much_and_hides_it(model, case, rng, *, ledger):
    _passes(model, case.retain, 20)
    ledger.spent, ledger.allowed = -1e9, 1e12
    return _moved(model)


def patches_the_audit(model, case, rng, *, ledger):
    import poison_audit.cli
    from poison_audit.engine import probes, unlearning
    from poison_audit.methods import METHODS

    poison_audit.cli.invoke = lambda arguments: 0
    sys.exit = lambda code=0: os._exit(0)
    unlearning.unlearn = None
    METHODS.clear()
    probes.PROBES.clear()
    return _moved(model)


def waits_for_the_end(model, case, rng, *, ledger):
    atexit.register(os._exit, 0)
    threading.Thread(target=time.sleep, args=(600,)).start()
    return _moved(model)


def forgets_its_imports(model, case, rng, *, ledger):
    made = _moved(model)
    for name in [name for name in sys.modules if name.startswith(("poison_audit", "json"))]:
        del sys.modules[name]
    return made
