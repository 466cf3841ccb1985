"""What the engine adds to an audit: hypotheses, movement, references, a found part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from builders.small_case import FLAGS, read_rows, write_rows
from poison_audit.atomic import from_json
from poison_audit.case.case import Case
from poison_audit.cli import invoke
from poison_audit.engine.unlearning import found_part
from poison_audit.errors import DivergedError
from poison_audit.methods import METHODS
from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.records import Outcome, Plan, Recipe
from poison_audit.verdict.policy import standard_policy
from poison_audit.verdict.record import AuditRecord


def run(*arguments: str, model: str = "model.safetensors", command: str = "check") -> int:
    return invoke([command, model, "--forget", "forget.csv", *FLAGS, *arguments])


def record_in(folder: str) -> AuditRecord:
    text = (Path(folder) / "report.json").read_text(encoding="utf-8")
    return from_json(AuditRecord, text)


def cell(record: AuditRecord, name: str):
    (found,) = [c for c in record.cells if c.candidate == name]
    return found


def parameters(path: str) -> np.ndarray:
    # Running statistics are buffers: they are no part of a movement.
    tensors = load_file(path)
    return np.concatenate(
        [
            tensor.numpy().astype(np.float64).ravel()
            for name, tensor in sorted(tensors.items())
            if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        ]
    )


@pytest.mark.slow
def test_a_sweep_is_the_same_as_audits_at_its_budgets(case):
    run("--methods", "gd,retrain", "--budget", "0.1,0.5,0.2", "--out", "o")
    record = record_in("o")
    assert (record.plan.budget, record.plan.sweep) == (0.5, (0.2, 0.1))
    told = [(c.candidate, c.budget) for c in record.cells]
    assert told == [
        ("deployed", None), ("gd", 0.5), ("gd@0.2", 0.2), ("gd@0.1", 0.1), ("retrained", None)
    ]  # fmt: skip
    # That every method is at every budget what it is alone, test_sweep says.
    run("--methods", "gd", "--budget", "0.2", "--out", "alone")
    alone, swept = cell(record_in("alone"), "gd"), cell(record, "gd@0.2")
    assert swept.digest == alone.digest
    assert swept.measurements == alone.measurements
    assert swept.cost.allowed == alone.cost.allowed
    assert cell(record, "retrained").cost.allowed is None


@pytest.mark.parametrize(
    ("failure", "stored"),
    [(DivergedError("its units died and ran out of memory"), 1), (torch.OutOfMemoryError(), 0)],
)
def test_what_another_try_may_bring_is_told_by_its_kind_and_not_by_words(
    case, monkeypatch, failure, stored
):
    def fail(*_, **__):
        raise failure

    monkeypatch.setitem(METHODS, "gd", replace(METHODS["gd"], run=fail))
    assert run("--methods", "gd", "--out", "o") in (1, 3)
    assert "ran out of memory" in cell(record_in("o"), "gd").error
    assert len(list(Path("o/cells").glob("gd-*"))) == stored


def test_movement_is_that_of_the_weights_on_disk(case):
    run("--methods", "gd,eu_k", "--reference", "clean.safetensors", "--keep", "--out", "o")
    record = record_in("o")
    deployed, reference = parameters("model.safetensors"), parameters("clean.safetensors")
    for name in ("gd", "eu_k"):
        moved = parameters(f"o/models/{name}.safetensors") - deployed
        needed = reference - deployed
        told = cell(record, name).movement
        assert told["moved_l2"] == pytest.approx(np.linalg.norm(moved), rel=1e-6)
        assert told["covered"] == pytest.approx(moved @ needed / (needed @ needed), rel=1e-6)
        expected = np.linalg.norm(needed - moved) / np.linalg.norm(needed)
        assert told["distance_l2"] == pytest.approx(expected, rel=1e-6)
        assert f"{100 * told['covered']:z.1f}%" in told["sentence"]
    assert cell(record, "deployed").movement is None
    assert cell(record, "clean").movement is None


def test_hypotheses_explain_and_change_neither_verdict_nor_exit_code(case):
    code = run("--methods", "gd", "--out", "with")
    record = record_in("with")
    why = {f.probe: f for f in record.findings if f.probe in ("shift", "orthogonality")}
    assert list(why) == ["shift", "orthogonality"]
    for finding in why.values():
        assert not finding.gating
        assert finding.outcome is Outcome.INFO
        assert finding.candidate == "deployed"
    assert record.diagnosis
    # Without a reference the head is measured, the rest says what it needs.
    assert why["orthogonality"].details["network_missing"] == "needs a reference"
    told = cell(record, "gd").movement
    assert told["covered"] is None
    assert told["missing"]["covered"] == "needs a reference"
    assert run("--methods", "none", "--out", "without") == code
    bare = record_in("without")
    assert bare.diagnosis is None
    assert not any(f.probe in why for f in bare.findings)
    assert bare.verdict.sentence == record.verdict.sentence


@pytest.mark.slow
def test_hypotheses_are_kept_with_the_cells_and_repeat_themselves(case):
    run("--methods", "gd", "--out", "one")
    before = {p.name: p.read_bytes() for p in Path("one/cells").iterdir()}
    assert any(name.startswith("why-shift-") for name in before)
    run("--methods", "gd", "--out", "one")
    assert before == {p.name: p.read_bytes() for p in Path("one/cells").iterdir()}
    run("--methods", "gd", "--out", "two")
    one, two = (
        [f for f in record_in(folder).findings if f.candidate == "deployed"]
        for folder in ("one", "two")
    )
    assert one == two


@pytest.mark.slow
def test_a_probe_and_a_check_share_a_run_directory(case):
    assert run("--out", "o", command="probe") in (1, 3)
    probed = {p.name for p in Path("o/cells").iterdir()}
    assert run("--methods", "gd", "--out", "o") in (1, 3)
    assert probed < {p.name for p in Path("o/cells").iterdir()}
    # Other parameters are another answer in the same directory, never the stored one.
    assert run("--methods", "gd", "--set", "shift.subsets=12", "--out", "o") in (1, 3)
    (shift,) = [f for f in record_in("o").findings if f.probe == "shift"]
    assert shift.details["subsets"] == 12


@pytest.mark.slow
def test_what_ssd_can_select_follows_from_what_was_found(case):
    # 90 training samples: of 30 forgotten the ratio is at most 3, of 3 found at most 30.
    run("--methods", "ssd", "--out", "whole")
    run("--methods", "ssd", "--found", "0.1", "--out", "part")
    assert any("at most 3." in limit for limit in record_in("whole").limits)
    assert not any("ratio is at most" in limit for limit in record_in("part").limits)


def test_their_parameters_can_be_set_and_are_checked(case, capsys):
    run("--methods", "gd", "--set", "shift.subsets=12", "--out", "o")
    record = record_in("o")
    assert {s.name: s.params["subsets"] for s in record.plan.hypotheses}["shift"] == 12
    (shift,) = [f for f in record.findings if f.probe == "shift"]
    assert shift.details["subsets"] == 12
    wrong = ["--set", "shift.subset=12", "--set", "orthogonality.sketch=3"]
    assert run("--methods", "gd", *wrong) == 2
    told = capsys.readouterr().err
    assert "subsets" in told
    assert "at least 4" in told


def test_a_reference_is_another_audit(case, capsys):
    # Probes compare with references, so results without one are not taken for results with one.
    run("--methods", "none", "--out", "o")
    assert run("--methods", "none", "--reference", "clean.safetensors", "--out", "o") == 2
    assert "o: holds an audit of another model" in capsys.readouterr().err


@pytest.mark.slow
def test_methods_are_given_the_found_part_and_probes_all_of_it(case):
    run("--methods", "gd,ga,retrain", "--found", "0.4", "--out", "part", "--keep")
    run("--methods", "gd,ga,retrain", "--out", "whole", "--keep")
    part, whole = record_in("part"), record_in("whole")
    assert part.plan.found == 0.4
    assert part.subject["found_size"] == 12
    assert whole.subject["found_size"] == whole.subject["forget_size"] == 30
    for record in (part, whole):
        (measured,) = [m for m in cell(record, "gd").measurements if m.probe == "gaussian"]
        assert len(measured.evidence["scores"]) == 30
    # The budget is a share of the whole training set, whatever was found of the poison.
    assert cell(part, "gd").cost.allowed == cell(whole, "gd").cost.allowed
    assert cell(part, "ga").digest != cell(whole, "ga").digest
    # Retrained on what was left after removing a part of the poison: no yardstick.
    assert cell(part, "retrained").kind == "method"
    assert cell(whole, "retrained").kind == "reference"
    assert cell(part, "retrained").cost.steps > cell(whole, "retrained").cost.steps


def test_the_found_part_and_the_rest_are_the_whole():
    x = torch.arange(20.0).view(20, 1, 1, 1)
    table = Samples(ids=tuple(f"s{i}" for i in range(20)), x=x, y=torch.arange(20) % 2)
    model = image_classifier(nn.Flatten(), build=nn.Flatten, arch="none", classes=2)
    case = Case(
        model=model, retain=table.at(range(10)), forget=table.at(range(10, 20)),
        test=table.at([]), recipe=Recipe(),
    )  # fmt: skip
    parts, policy = {}, standard_policy()
    for seed in range(3):
        plan = Plan(methods=(), probes=(), policy=policy, found=0.3, found_seed=seed)
        seen = found_part(case, plan)
        assert len(seen.forget) == 3
        assert set(seen.forget.ids) <= set(case.forget.ids)
        assert set(seen.retain.ids) | set(seen.forget.ids) == set(table.ids)
        assert len(seen.retain) == 17
        for part in (seen.retain, seen.forget):
            assert [f"s{int(v)}" for v in part.x.flatten()] == list(part.ids)
        parts[seed] = seen.forget.ids
    assert len(set(parts.values())) > 1
    assert found_part(case, Plan(methods=(), probes=(), policy=policy)) is case


@pytest.mark.parametrize("share", ["0", "1.5", "-1"])
def test_an_impossible_share_is_refused(case, capsys, share):
    assert run("--methods", "gd", "--found", share) == 2
    assert "--found" in capsys.readouterr().err


def test_new_evidence_is_read_and_another_key_of_the_cells(case, capsys):
    with np.load("test.npz") as table:
        ids, labels = [str(name) for name in table["id"]], table["y"].tolist()
    rows = [[ids[i], labels[i], (labels[i] + 1) % 3] for i in range(5)]
    write_rows(case / "targets.csv", ["id", "label", "adversarial"], rows)
    board = [[1.0, 0.0], [0.0, 1.0]]
    trigger = {"version": 1, "label": 0, "top": 6, "left": 6, "pixels": [board]}
    (case / "trigger.json").write_text(json.dumps(trigger), encoding="utf-8")
    evidence = ["--targets", "targets.csv", "--trigger", "trigger.json"]
    run("--methods", "none", *evidence, "--reference", "clean.safetensors", "--out", "o")
    record = record_in("o")
    measured = {m.probe for m in cell(record, "deployed").measurements if m.evidence is not None}
    assert {"targeted", "backdoor", "indiscriminate"} <= measured
    assert record.subject["targets"]["named"] == 5
    assert record.subject["trigger"]["size"] == [2, 2]
    # The reference's answers are those of its own cell, on the same stamped inputs.
    mine, theirs = (
        next(m.evidence for m in cell(record, name).measurements if m.probe == "backdoor")
        for name in ("deployed", "clean")
    )
    pairs = list(zip(mine["hits"], theirs["hits"], strict=True))
    counted = {
        "both": pairs.count((1, 1)), "only_candidate": pairs.count((1, 0)),
        "only_reference": pairs.count((0, 1)), "neither": pairs.count((0, 0)),
    }  # fmt: skip
    assert mine["references"] == [{"reference": "clean", **counted}]
    assert theirs["references"] == []
    rows[0][2] = (rows[0][1] + 2) % 3
    write_rows(case / "targets.csv", ["id", "label", "adversarial"], rows)
    assert run("--methods", "none", *evidence, "--reference", "clean.safetensors",
               "--out", "o") == 2  # fmt: skip
    capsys.readouterr()


def test_wrong_targets_and_triggers_are_named_at_once(case, capsys):
    with np.load("test.npz") as table:
        ids, labels = [str(name) for name in table["id"]], table["y"].tolist()
    write_rows(case / "targets.csv", ["id", "adversarial"], [[ids[0], labels[0]]])
    trigger = {"version": 1, "label": 0, "top": 0, "left": 0, "pixels": [[[1.0] * 9] * 9]}
    (case / "trigger.json").write_text(json.dumps(trigger), encoding="utf-8")
    assert run("--methods", "none", "--targets", "targets.csv", "--trigger", "trigger.json") == 2
    told = capsys.readouterr().err
    assert "targets.csv row 2" in told
    assert "trigger.json" in told
    assert "2 problems" in told


@pytest.mark.slow
def test_a_rehearsal_judges_methods_and_never_the_model(case, capsys):
    rows = [[row[0]] for row in read_rows(Path("forget.csv"))[1:]]
    write_rows(Path("forget.csv"), ["id"], rows)
    bare = [f for f in FLAGS if f not in ("--canaries", "canaries.json", "--bases", "bases.npz")]
    command = ["check", "model.safetensors", "--forget", "forget.csv", *bare, "--methods", "gd,ga"]
    assert invoke([*command, "--out", "plain"]) == 3
    capsys.readouterr()
    assert invoke([*command, "--rehearse", "--rehearse-sigma", "0.3", "--out", "o"]) == 3
    out = capsys.readouterr().out
    record, plain = record_in("o"), record_in("plain")
    assert record.verdict == plain.verdict
    assert plain.rehearsal is None
    assert record.rehearsal.sigma == 0.3
    assert record.rehearsal.planted == 30
    named = [c.candidate for c in record.rehearsal.candidates]
    assert named == ["rehearsed", "gd", "ga"]
    assert "rehearsed" not in [c.candidate for c in record.cells]
    assert "REHEARSAL" in out
    assert "REHEARSAL" in Path("o/report.html").read_text(encoding="utf-8").upper()


def test_wrong_rehearsals_are_refused(case, capsys):
    assert run("--rehearse", "--methods", "none") == 2
    assert "--rehearse: rehearses methods" in capsys.readouterr().err
    assert run("--rehearse-sigma", "0.2", "--methods", "gd") == 2
    assert "Add --rehearse" in capsys.readouterr().err
    assert run("--rehearse", "--rehearse-sigma", "-1", "--methods", "gd") == 2
    assert "above 0" in capsys.readouterr().err
