"""What `import poison_audit` does: next to nothing; and what it promises."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import poison_audit as pa

WATCH = """
import json, os, sys

seen = []

def watch(event, args):
    if event == "open":
        path, mode, flags = args
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (
            (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            seen.append([event, str(path)])
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.rename", "os.remove")):
        seen.append([event, ""])

sys.addaudithook(watch)
before = set(sys.modules)
import poison_audit as pa
named = pa.__version__, dir(pa), pa.InputError
new = set(sys.modules) - before
print(json.dumps({"seen": seen, "new": sorted(new)}))
"""


def test_importing_it_reads_its_own_files_alone():
    """No torch, no network, nothing written; no clock is asked, so what is imported is counted."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["seen"] == []
    heavy = {"torch", "numpy", "transformers", "click", "rich", "matplotlib", "pydantic", "scipy"}
    assert not heavy & {name.partition(".")[0] for name in told["new"]}
    assert len(told["new"]) < 60, told["new"]


def test_what_is_promised_is_there():
    assert sorted(pa.__all__) == pa.__all__
    assert set(pa.__all__) <= set(dir(pa))
    for name in pa.__all__:
        found = getattr(pa, name)
        assert found.__module__.startswith("poison_audit."), name
        assert inspect.getdoc(found), name
    assert not hasattr(pa, "adit")


def test_help_tells_every_argument():
    for function in (pa.audit, pa.plant):
        told = inspect.getdoc(function)
        for name in inspect.signature(function).parameters:
            assert f"{name}:" in told or f"{name}," in told or f", {name}" in told, name
    # The others say what is theirs, and name audit for the rest.
    names = set(inspect.signature(pa.audit).parameters)
    for function in (pa.probe, pa.unlearn, pa.repair):
        told = inspect.getdoc(function)
        assert "`audit`" in told
        for name in set(inspect.signature(function).parameters) - names:
            assert f"{name}:" in told
