"""Cells through Ray: the same report, workers that die, and nothing twice."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.engine.measuring import Work
from poison_audit.records import Outcome
from poison_audit.verdict.record import AuditRecord

ray = pytest.importorskip("ray")
# Ray leaves sockets and files to the end of its processes.
pytestmark = [
    pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("plain_page"),
]  # fmt: skip

COMMAND = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--methods",
           "gd,ssd", "--budget", "0.2,0.4"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def two_workers():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )  # fmt: skip
    except Exception as error:
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield
    ray.shutdown()


def run(out: str, *arguments: str) -> AuditRecord:
    assert invoke([*COMMAND, "--out", out, *arguments]) in (1, 3)
    return from_json(AuditRecord, (Path(out) / "report.json").read_text(encoding="utf-8"))


def bare(record: AuditRecord) -> AuditRecord:
    """Return a record without timings and machine."""
    cells = [
        replace(
            cell, probe_seconds=0.0,
            cost=cell.cost and replace(cell.cost, seconds=0.0, peak_bytes=None),
        )
        for cell in record.cells
    ]  # fmt: skip
    return replace(record, cells=tuple(cells), environment={}, seal=None)


def fragile(folder: Path, **deaths: int) -> type[Work]:
    """Return work whose workers are killed: those of a method, so many times."""
    folder.mkdir()
    for name, times in deaths.items():
        for number in range(times):
            (folder / f"{name}-{number}").touch()

    class Fragile(Work):
        def on(self, line, tell=lambda place, share: None):
            name = line[0][1].method.name if line[0][1].method else "none"
            for death in folder.glob(f"{name}-*"):
                with suppress(FileNotFoundError):  # another worker died of it
                    death.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
            return Work.on(self, line, tell)

    return Fragile


@pytest.fixture(scope="module")
def alone(small_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> AuditRecord:
    """Return the report of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shutil.copytree(small_pictures, tmp_path_factory.mktemp("alone") / "case"))
        return run("alone")


@pytest.mark.long
def test_what_is_finished_is_not_done_again_and_kept_models_come_back(case, capsys):
    run("o", "--ray", "local", "--keep")
    names = sorted(path.name for path in Path("o/models").iterdir())
    assert len(names) == 2 * 2
    before = {path.name: path.stat().st_mtime_ns for path in Path("o/cells").iterdir()}
    (gone,) = Path("o/cells").glob("ssd-0-*")  # one budget of two
    gone.unlink()
    capsys.readouterr()
    run("o", "--ray", "local", "--keep")
    told = capsys.readouterr().err
    assert told.count("kept from an earlier run") == 4
    after = {path.name: path.stat().st_mtime_ns for path in Path("o/cells").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {gone.name}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(case, alone, tmp_path, monkeypatch):
    fate = tmp_path / "fate"
    monkeypatch.setattr("poison_audit.engine.run.Work", fragile(fate, gd=1))
    # What two workers made, and one in place of another, is what one process makes.
    assert bare(run("spread", "--ray", "local")) == bare(alone)
    assert not list(fate.glob("gd-*"))


@pytest.mark.long
def test_what_no_worker_survives_is_tried_again_by_the_same_command(
    case, alone, tmp_path, monkeypatch
):
    monkeypatch.setattr("poison_audit.engine.cluster.RETRIES", 1)  # each takes a new worker
    monkeypatch.setattr("poison_audit.engine.run.Work", fragile(tmp_path / "fate", ssd=100))
    record = run("spread", "--ray", "local")
    assert [cell.candidate for cell in record.cells][:2] == ["deployed", "gd"]
    lost = [cell for cell in record.cells if cell.error]
    assert {cell.candidate for cell in lost} == {"ssd", "ssd@0.2"}
    assert len(lost) == 2
    assert all("its worker died 2 times" in cell.error for cell in lost)
    failed = {f.candidate for f in record.findings if f.outcome is Outcome.FAILED}
    assert failed == {"ssd", "ssd@0.2"}
    monkeypatch.setattr("poison_audit.engine.run.Work", Work)
    assert bare(run("spread", "--ray", "local")) == bare(alone)


@pytest.mark.slow
def test_wrong_flags_are_said_before_anything_runs(case, capsys, monkeypatch):
    for arguments, told in (
        (["--ray-gpus", "0.5"], "Add --ray"),
        (["--ray", "local", "--ray-gpus", "-1"], "must be from 0 to 64"),
    ):
        assert invoke([*COMMAND, "--out", "o", *arguments]) == 2
        assert told in capsys.readouterr().err
    if not ray.cluster_resources().get("GPU"):  # Ray would wait for one for ever
        assert invoke([*COMMAND, "--out", "o", "--ray", "local", "--ray-gpus", "1"]) == 2
        assert "no machine of the cluster has more than 0" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert invoke([*COMMAND, "--out", "o", "--ray", "local"]) == 2
    assert "pip install 'poison-audit[ray]'" in capsys.readouterr().err
