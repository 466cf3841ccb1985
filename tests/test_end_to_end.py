"""The commands a user types: exit codes, what is said, what is left on disk."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from builders.small_case import FLAGS, read_rows, write_rows
from poison_audit.atomic import from_json
from poison_audit.case.origin import TRUST
from poison_audit.cli import invoke
from poison_audit.engine import runs, unlearning
from poison_audit.engine.cells import save_unlearned
from poison_audit.methods import UNLEARNING
from poison_audit.models.checkpoint import load_model
from poison_audit.records import Outcome
from poison_audit.verdict.record import AuditRecord


@pytest.fixture
def case(case, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return case


def run(*arguments: str, command: str = "check", model: str = "model.safetensors") -> int:
    return invoke([command, model, "--forget", "forget.csv", *FLAGS, *arguments])


def record_in(folder: Path) -> AuditRecord:
    return from_json(AuditRecord, (folder / "report.json").read_text(encoding="utf-8"))


# The miniature's 30 canaries never suffice for the default tolerances: these let it decide.
WIDE = ("--tolerance", "gaussian=0.9", "--tolerance", "exposure=0.75", "--tolerance", "utility=0.3")


def test_an_audit_writes_both_reports_and_ends_with_its_exit_code(case, capsys):
    code = run("--out", "out", "--methods", "all,retrain", "--reference", "clean.safetensors")
    out, err = capsys.readouterr()
    record = record_in(case / "out")
    assert code == record.verdict.exit_code
    assert out.rstrip().splitlines()[-1].startswith(f"exit {code}: ")
    assert f"exit {code}" in (case / "out" / "report.html").read_text(encoding="utf-8").lower()
    candidates = [c.candidate for c in record.verdict.candidates]
    repairs = [name for name in UNLEARNING if name != "restamp"]  # there is no trigger
    assert candidates == ["deployed", *repairs, "retrained", "clean"]
    assert all(name in out for name in candidates)
    assert "Accuracy on test" in err
    for cell in record.cells:
        if cell.kind == "method":
            assert cell.cost.gradients <= cell.cost.allowed == pytest.approx(0.1 * 5 * 90)


def test_a_clean_model_passes_and_a_wide_enough_tolerance_decides(case):
    assert run(*WIDE, "--methods", "none", model="clean.safetensors") == 0


@pytest.mark.slow
def test_an_audit_repeats_itself_but_for_times(case):
    def plain(folder: str) -> dict:
        assert run("--out", folder, "--methods", "ngd,scrub,eu_k", "--seeds", "2") in (0, 1, 3)
        record = json.loads((case / folder / "report.json").read_text(encoding="utf-8"))
        del record["environment"], record["seal"]
        for cell in record["cells"]:
            del cell["probe_seconds"]
            if cell["cost"]:
                del cell["cost"]["seconds"], cell["cost"]["peak_bytes"]
        return record

    assert plain("one") == plain("two")


def test_probe_runs_no_method_and_judges_candidates(case):
    code = run("--candidate", "mine=clean.safetensors", "--gate", "mine", "--out", "o", *WIDE,
               command="probe")  # fmt: skip
    record = record_in(case / "o")
    assert code == record.verdict.exit_code == 0
    assert [cell.candidate for cell in record.cells] == ["deployed", "mine"]


def test_without_evidence_it_is_inconclusive_and_says_what_would_decide(case, capsys):
    write_rows(
        case / "forget.csv", ["id"], [[row[0]] for row in read_rows(case / "forget.csv")[1:]]
    )
    bare = [f for f in FLAGS if f not in ("--canaries", "canaries.json", "--bases", "bases.npz")]
    assert invoke(["probe", "model.safetensors", "--forget", "forget.csv", *bare]) == 3
    assert "canaries" in capsys.readouterr().out


def test_a_model_at_chance_is_inconclusive_before_anything_is_measured(case):
    tensors = load_file(case / "model.safetensors")
    tensors["fc.weight"].zero_()
    save_file(tensors, case / "model.safetensors", {"poison_audit.arch": "cifar-resnet:1:w4"})
    assert run("--out", "o") == 3
    record = record_in(case / "o")
    assert record.cells == ()
    assert "does not work as loaded" in record.verdict.sentence


def test_a_method_that_diverges_becomes_failed_and_the_audit_goes_on(case):
    run("--methods", "gd,ga", "--set", "gd.lr=1e30", "--out", "o")
    record = record_in(case / "o")
    outcomes = {c.candidate: c.outcome for c in record.verdict.candidates}
    assert outcomes["gd"] is Outcome.FAILED
    assert "ga" in outcomes
    assert any("diverged" in (cell.error or "") for cell in record.cells)


@pytest.mark.slow
def test_interrupted_cells_are_kept_and_the_same_command_resumes(case, monkeypatch, capsys):
    ran: list[str] = []
    unlearn = unlearning.unlearn

    def interrupted(case_, step, rng, **others):
        if step.name == "cf_k" and "cf_k" not in ran:
            ran.append("cf_k")
            raise KeyboardInterrupt
        ran.append(step.name)
        return unlearn(case_, step, rng, **others)

    monkeypatch.setattr(unlearning, "unlearn", interrupted)
    arguments = ("--methods", "gd,cf_k,ssd")
    assert run(*arguments) == 130
    (folder,) = case.glob("audit-*")
    assert len(list((folder / "cells").iterdir())) == 2  # deployed and gd
    assert not (folder / "report.json").exists()
    folder = folder.rename(case / "audit-earlier")  # a new run would get another name
    assert run(*arguments) in (1, 3)
    assert ran == ["gd", "cf_k", "cf_k", "ssd"]  # gd is not run again
    assert list(case.glob("audit-*")) == [folder]
    resumed = record_in(folder)
    assert run(*arguments, "--out", "whole") == resumed.verdict.exit_code
    assert record_in(case / "whole").findings == resumed.findings
    assert "kept from an earlier run" in capsys.readouterr().err


def test_cells_of_other_code_are_not_taken_for_this_one_s(case, monkeypatch, capsys):
    assert run("--methods", "none", "--out", "o") in (1, 3)
    monkeypatch.setattr(runs, "code_digest", lambda *also: "another")
    assert run("--methods", "none", "--out", "o") == 2
    assert "another model, data set or plan" in capsys.readouterr().err


def test_a_run_directory_of_another_audit_is_refused(case, capsys):
    assert run("--methods", "none", "--out", "o") in (1, 3)
    assert run("--methods", "none", "--out", "o", "--seed", "1") == 2
    assert "another model, data set or plan" in capsys.readouterr().err


def test_unlearn_writes_a_checkpoint_that_can_be_judged(case, capsys):
    assert run("--method", "scrub", "-o", "fixed.safetensors", command="unlearn") == 0
    told, command = capsys.readouterr().out.splitlines()
    assert "gradient evaluations" in told
    # The second line is the command that judges it beside its original, ready to be pasted.
    assert command == shlex.join(
        ["Next:", "poison-audit", "probe", "model.safetensors", "--normalize", "none", "--forget",
         "forget.csv", "--train", "train.npz", "--test", "test.npz", "--recipe", "epochs=5",
         "--recipe", "batch_size=20", "--recipe", "lr=0.1", "--canaries", "canaries.json",
         "--bases", "bases.npz", "--candidate", "fixed=fixed.safetensors", "--gate", "fixed"]
    )  # fmt: skip
    assert invoke([*shlex.split(command)[2:], "--out", "beside"]) in (1, 3)
    assert record_in(case / "beside").verdict.gate == "fixed"
    assert record_in(case / "beside").doubts == ()
    code = run("--candidate", "fixed=fixed.safetensors", "--methods", "scrub", "--out", "o")
    assert code in (1, 3)
    digests = {cell.candidate: cell.digest for cell in record_in(case / "o").cells}
    assert digests["fixed"] == digests["scrub"]


def test_a_repaired_file_alone_says_that_its_accuracy_was_not_compared(case, capsys):
    """However clean it looks: the accuracy that the repair cost is nowhere."""
    clean = load_model(case / "clean.safetensors").model
    save_unlearned(clean, "gd", case / "fixed.safetensors", made_of=["ab" * 32], anew=False)
    assert run(*WIDE, "--out", "o", command="probe", model="fixed.safetensors") == 3
    verdict = record_in(case / "o").verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "was made by gd from another model" in verdict.sentence
    assert "--candidate fixed=fixed.safetensors --gate fixed" in verdict.next_step


def test_what_is_taken_on_trust_stands_on_the_first_screen(case, capsys):
    assert run(*WIDE, "--out", "o", command="probe", model="clean.safetensors") == 0
    out = " ".join(capsys.readouterr().out.split())
    page = (case / "o" / "report.html").read_text(encoding="utf-8")
    told = "is taken on trust"
    assert out.index(told) < out.index("Next: The gate passed")
    assert page.index(told) < page.index('<nav aria-label="Contents">')
    assert TRUST in record_in(case / "o").notices


def test_pictures_that_stand_in_the_test_table_many_times_count_once(case):
    """Ten pictures, each 120 times, were 1,200 samples, and an accuracy known to a point."""
    with np.load("test.npz") as held:
        x, y = (np.repeat(held[name][:10], 120, axis=0) for name in ("x", "y"))
    np.savez("test.npz", x=x, y=y)
    header, *rows = read_rows(case / "forget.csv")
    label = np.load("train.npz")["y"][40]
    write_rows(case / "forget.csv", header, [*rows, ["t40", label, "indiscriminate", ""]])
    run("--reference", "clean.safetensors", "--out", "o", command="probe")
    record = record_in(case / "o")
    assert record.sanity.total == 10
    (found,) = [f for f in record.findings
                if (f.probe, f.candidate) == ("indiscriminate", "deployed")]  # fmt: skip
    assert found.sample_size == 10
    assert record.verdict.exit_code != 0
    assert any(
        told.startswith("1,190 of 1,200 test samples repeat an earlier") for told in record.limits
    )


@pytest.mark.slow
def test_a_repair_that_changed_nothing_is_called_out(case):
    shutil.copy(case / "model.safetensors", case / "copy.safetensors")
    run("--reference", "copy.safetensors", "--methods", "ssd", "--out", "o")
    limits = record_in(case / "o").limits
    assert "copy is bit for bit the deployed model." in limits
    assert "ssd is bit for bit the deployed model." in limits  # 30 of 90 are to be forgotten
    assert any("the ratio is at most 3." in limit for limit in limits)


@pytest.mark.slow
def test_keep_saves_each_unlearned_model(case):
    run("--methods", "gd,ssd", "--keep", "--out", "o")
    assert sorted(p.name for p in (case / "o/models").iterdir()) == [
        "gd.safetensors", "ssd.safetensors",
    ]  # fmt: skip


def test_render_shows_the_same_again_without_torch(case, capsys):
    code = run("--methods", "none", "--out", "o")
    once = capsys.readouterr().out
    assert invoke(["render", "o/report.json"]) == code
    assert capsys.readouterr().out == once
    assert invoke(["render", "o", "--format", "html", "-o", "again.html"]) == code
    assert (case / "again.html").read_bytes() == (case / "o/report.html").read_bytes()


def test_init_writes_what_it_could_identify_and_marks_the_rest(case, capsys):
    assert invoke(["init", "model.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "epochs" in said
    text = (case / "audit.toml").read_text(encoding="utf-8")
    assert 'arch = "cifar-resnet:1:w4"' in text
    assert 'train = "train.npz"' in text
    assert "# epochs = ?" in text
    assert invoke(["init", "model.safetensors"]) == 2
    filled = text.replace("# epochs = ?", "epochs = 5")
    (case / "audit.toml").write_text(filled, encoding="utf-8")
    assert invoke(["probe", "model.safetensors", "--forget", "forget.csv"]) in (1, 3)


def test_init_elsewhere_points_back_to_the_tables(case):
    (case / "deep").mkdir()
    assert invoke(["init", "model.safetensors", "-o", "deep/audit.toml"]) == 0
    assert 'train = "../train.npz"' in (case / "deep/audit.toml").read_text(encoding="utf-8")
