"""What lies in a run directory is anybody's: what is taken, followed, replaced and removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from builders.small_case import FLAGS
from poison_audit.cli import invoke
from poison_audit.engine import runs

pytestmark = pytest.mark.usefixtures("plain_page")

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "-q", "--out"]


def probe(out: str = "o") -> int:
    return invoke([*PROBE, out])


def cells(out: str = "o") -> list[Path]:
    return sorted(Path(out, "cells").glob("*.json"))


def report(out: str = "o"):
    return json.loads(Path(out, "report.json").read_text("utf-8"))


def scores(out: str = "o"):
    (cell,) = report(out)["cells"]
    return [(m["probe"], m["evidence"], m["missing"]) for m in cell["measurements"]]


@pytest.fixture
def probed(case):
    probe()
    return case


def edit(path: Path, change) -> None:
    plain = json.loads(path.read_text("utf-8"))
    change(plain)
    path.write_text(json.dumps(plain), encoding="utf-8")


def forge(cell) -> None:
    """Put figures there that no model showed: of every canary the mean of the null."""
    for seen in cell["measurements"]:
        if seen["probe"] == "gaussian":
            n = len(seen["evidence"]["scores"])
            seen["evidence"]["scores"] = [(-1.0) ** i for i in range(n)]


def evidence(cell, probe: str):
    return next(m["evidence"] for m in cell["measurements"] if m["probe"] == probe)


FORGERIES = {
    "other scores": (forge, "is not signed with your key"),
    "another model's": (lambda c: c.update(digest="0" * 64), "is not signed with your key"),
    "unsigned": (lambda c: c.pop("signature"), "is not signed with your key"),
    "signed by nobody": (lambda c: c.update(signature=None), "is not signed with your key"),
    "signed anyhow": (lambda c: c.update(signature="0" * 64), "is not signed with your key"),
    "no draws": (lambda c: evidence(c, "exposure").update(draws=0), "is not signed"),
    "no evidence": (lambda c: c["measurements"][0].pop("evidence"), "is damaged"),
    "an unknown key": (lambda c: c.update(more=1), "is damaged"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_cell_that_this_user_did_not_measure_is_measured_again(probed, capsys, name):
    expected, change = scores(), FORGERIES[name][0]
    (cell,) = cells()
    honest = cell.read_bytes()
    edit(cell, change)
    capsys.readouterr()
    probe()
    told = capsys.readouterr().err
    assert f"deployed: what lay in the run directory {FORGERIES[name][1]}" in told
    assert scores() == expected
    assert json.loads(cell.read_bytes())["measurements"] == json.loads(honest)["measurements"]
    assert invoke(["verify", "o"]) == 0


def test_a_cell_of_another_job_is_not_taken_though_it_is_signed(case, capsys):
    flags = [*PROBE, "o", "--candidate", "mine=clean.safetensors"]
    invoke(flags)
    expected = report()
    deployed = next(path for path in cells() if path.name.startswith("deployed"))
    mine = next(path for path in cells() if path.name.startswith("mine"))
    shutil.copy(mine, deployed)
    capsys.readouterr()
    invoke(flags)
    assert "deployed: what lay in the run directory is not signed" in capsys.readouterr().err
    for part in ("findings", "verdict"):
        assert report()[part] == expected[part]


def test_a_restored_cache_of_somebody_else_is_not_taken(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("POISON_AUDIT_KEY", "of somebody else, who forged the cells")
    probe("theirs")
    monkeypatch.delenv("POISON_AUDIT_KEY")
    Path("o").mkdir()
    shutil.copytree("theirs/cells", "o/cells")  # as CI restores them: without run.json
    capsys.readouterr()
    probe()
    assert "is not signed with your key" in capsys.readouterr().err
    # With one key in both places, it is gone on with.
    shutil.rmtree("o")
    Path("o").mkdir()
    monkeypatch.setenv("POISON_AUDIT_KEY", "of somebody else, who forged the cells")
    shutil.copytree("theirs/cells", "o/cells")
    before = cells()[0].stat().st_mtime_ns
    probe()
    assert capsys.readouterr().err == ""
    assert cells()[0].stat().st_mtime_ns == before
    assert scores() == scores("theirs")


def test_without_a_key_everything_is_measured_again(case, monkeypatch, capsys):
    monkeypatch.setenv("POISON_AUDIT_KEY", "too short")
    probe()
    expected = scores()
    probe()
    told = capsys.readouterr().err
    assert "Nothing that is stored can be taken" in told
    assert "deployed: what lay in the run directory is not signed" in told
    assert scores() == expected


@pytest.mark.slow
def test_a_kept_model_that_was_swapped_is_made_again(case):
    flags = ["check", *PROBE[1:], "o", "--methods", "gd", "--keep"]
    invoke(flags)
    made = Path("o/models/gd.safetensors").read_bytes()
    shutil.copy("clean.safetensors", "o/models/gd.safetensors")
    invoke(flags)
    assert Path("o/models/gd.safetensors").read_bytes() == made


# Links, and what is not ours.


def a_lock(out: Path) -> None:
    (out / "lock").unlink(missing_ok=True)
    (out / "lock").symlink_to("../model.safetensors")


def a_second_name(out: Path) -> None:
    (out / "lock").unlink(missing_ok=True)
    os.link("model.safetensors", out / "lock")


def a_mark(out: Path) -> None:
    (out / "run.json").unlink(missing_ok=True)
    (out / "run.json").symlink_to("../model.safetensors")


def the_cells(out: Path) -> None:
    shutil.rmtree(out / "cells", ignore_errors=True)
    (out / "cells").symlink_to("../outside")


def a_cell(out: Path) -> None:
    (out / "cells").mkdir(exist_ok=True)
    (out / "cells" / "x.json").symlink_to("../../model.safetensors")


def the_models(out: Path) -> None:
    (out / "models").symlink_to("../outside")


def the_rehearsal_s_cells(out: Path) -> None:
    (out / "rehearsal").mkdir()
    (out / "rehearsal" / "cells").symlink_to("../../outside")


def a_cell_that_is_a_pipe(out: Path) -> None:
    (out / "cells").mkdir(exist_ok=True)
    os.mkfifo(out / "cells" / "x.json")


def a_mark_that_is_a_pipe(out: Path) -> None:
    (out / "run.json").unlink(missing_ok=True)
    os.mkfifo(out / "run.json")


def a_lock_that_is_a_pipe(out: Path) -> None:
    (out / "lock").unlink(missing_ok=True)
    os.mkfifo(out / "lock")


LINKS = (
    a_lock, a_second_name, a_mark, the_cells, a_cell, the_models, the_rehearsal_s_cells,
    a_cell_that_is_a_pipe, a_mark_that_is_a_pipe, a_lock_that_is_a_pipe,
)  # fmt: skip


def everything(folder: Path = Path()) -> dict[str, bytes | str]:
    return {
        str(path): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture(scope="module")
def audited(small_pictures, tmp_path_factory):
    folder = shutil.copytree(small_pictures, tmp_path_factory.mktemp("audited") / "case")
    here = Path.cwd()
    os.chdir(folder)
    probe()
    os.chdir(here)
    return folder


@pytest.mark.parametrize("spoil", LINKS)
@pytest.mark.parametrize("new", [False, True])
def test_no_link_in_a_run_directory_is_followed(audited, tmp_path, monkeypatch, capsys, spoil, new):
    folder = shutil.copytree(audited, tmp_path / "case")
    monkeypatch.chdir(folder)
    if new:
        shutil.rmtree("o")
    Path("o").mkdir(exist_ok=True)
    Path("outside").mkdir()
    spoil(Path("o"))
    before = everything()
    assert probe() == 2
    after = everything()
    after.pop("o/lock", None), before.pop("o/lock", None)
    assert after == before
    assert list(Path("outside").iterdir()) == []
    assert "Choose another --out" in capsys.readouterr().err


def test_a_linked_report_is_replaced_and_not_followed(probed):
    weights = Path("model.safetensors").read_bytes()
    Path("o/report.html").unlink()
    Path("o/report.html").symlink_to("../model.safetensors")
    assert probe() == 2
    assert Path("model.safetensors").read_bytes() == weights
    assert Path("o/report.html").is_symlink()


def test_a_folder_that_is_something_else_is_left_alone(case, capsys):
    mine = {".backup.20240101": "mine", ".env.1": "mine", "report.md": "mine", "run.txt": ""}
    for name, text in mine.items():
        Path(name).write_text(text, encoding="utf-8")
    before = everything()
    assert probe(".") == 2
    assert everything() == before
    assert ".: is no run directory, and not empty: it holds" in capsys.readouterr().err
    Path("empty").mkdir()
    assert probe("empty") in (1, 3)


def test_a_user_s_files_in_a_run_directory_stay(probed, capsys):
    Path("o/notes.txt").write_text("mine", encoding="utf-8")
    Path("o/.report.json.7").write_text("mine", encoding="utf-8")
    assert probe() in (1, 3)
    assert Path("o/notes.txt").read_text("utf-8") == "mine"
    assert Path("o/.report.json.7").read_text("utf-8") == "mine"
    Path("o/report.md").write_text("My own notes about it", encoding="utf-8")
    capsys.readouterr()
    assert probe() == 2
    assert "report.md: is no report of poison-audit" in capsys.readouterr().err
    assert Path("o/report.html").exists()


def test_a_run_json_that_is_somebody_s_stays(case, capsys):
    Path("o").mkdir()
    Path("o/run.json").write_text('{"learning_rate": 0.1}', encoding="utf-8")
    assert probe() == 2
    assert "o/run.json: was not written by poison-audit" in capsys.readouterr().err
    assert Path("o/run.json").read_text("utf-8") == '{"learning_rate": 0.1}'


def test_a_clock_that_goes_back_overwrites_no_audit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        with runs.open_run(None, "k", started="20260101T000000Z") as out:
            Path(out, "report.json").write_text(f"{number}", encoding="utf-8")
    names = ["audit-20260101T000000Z", "audit-20260101T000000Z-2", "audit-20260101T000000Z-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [Path(name, "report.json").read_text("utf-8") for name in names] == ["0", "1", "2"]
