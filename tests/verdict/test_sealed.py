"""The seal of a report: an edit is found, what cannot be known is listed, and nothing passes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from builders.leaves import edit as edit_leaf
from builders.leaves import leaves, listed, spelt
from builders.small_case import FLAGS
from poison_audit.atomic import digest_of
from poison_audit.cli import invoke
from poison_audit.reports.formats import FORMATS

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "-q", "--out", "o",
         "--format", "junit,sarif,markdown,in-toto,cyclonedx,model-card"]  # fmt: skip


@pytest.fixture(scope="module")
def made(small_pictures, tmp_path_factory):
    folder = shutil.copytree(small_pictures, tmp_path_factory.mktemp("sealed") / "case")
    here = Path.cwd()
    os.chdir(folder)
    assert invoke(PROBE) in (1, 3)
    os.chdir(here)
    return folder


@pytest.fixture
def audited(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "case")
    monkeypatch.chdir(folder)
    return folder


def edit(change, *, careful: bool = False, out: str = "o") -> None:
    path = Path(out, "report.json")
    tree = json.loads(path.read_text("utf-8"))
    change(tree)
    if careful:
        rest = {key: value for key, value in tree.items() if key != "seal"}
        tree["seal"]["digest"] = digest_of(rest)
    path.write_text(json.dumps(tree), encoding="utf-8")


def verified(capsys, *flags: str) -> tuple[int, str]:
    capsys.readouterr()
    return invoke(["verify", "o", *flags]), capsys.readouterr().out


def test_what_was_not_edited_agrees_and_takes_nothing_on_trust(audited, capsys):
    code, told = verified(capsys)
    assert code == 0, told
    assert "TRUST" not in told
    # However it is spaced, and in whatever order its keys stand.
    edit(lambda tree: tree.update(tool_version=tree.pop("tool_version")))
    Path("o/report.html").unlink()
    assert verified(capsys)[0] == 0


def without_weights(tree):
    tree["subject"]["model_sha256"] = "0" * 64
    tree["files"] = [each for each in tree["files"] if each["role"] != "weights"]


EDITS = {
    "weights": without_weights,
    "limits": lambda tree: tree.update(limits=["Independently certified."]),
    "decided again": lambda tree: (
        tree["environment"].update(decided_again="x"), tree["sanity"].update(low=0.999999)
    ),
    "attacks": lambda tree: tree["subject"].update(attacks={}),
    "comparability": lambda tree: tree.update(comparability=None),
    "test": lambda tree: tree["subject"].update(test_sha256="0" * 64),
    "sizes": lambda tree: tree["subject"].update(test_size=10**6, model="prod/other.safetensors"),
    "version": lambda tree: tree.update(tool_version="9.9"),
    "exhibits": lambda tree: tree.update(exhibits=[]),
    "settings": lambda tree: tree["environment"]["settings"].update(train="x [data]"),
    "doubts": lambda tree: tree.update(doubts=[{
        "about": "rows", "sentence": "a", "step": "b", "spoils": False
    }]),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_any_edit_differs(audited, capsys, name):
    edit(EDITS[name])
    code, told = verified(capsys)
    assert code == 1
    assert "DIFFERS: seal.digest" in told
    capsys.readouterr()
    assert invoke(["decide", "o"]) == 2  # what was edited is not decided again as if it were not
    assert "was edited after it was written" in capsys.readouterr().err


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_with_its_digest_is_not_what_this_user_signed(audited, capsys, name):
    edit(EDITS[name], careful=True)
    code, told = verified(capsys)
    assert code == 1
    assert "DIFFERS: seal.signature: It is not what your key signed." in told


def test_to_others_an_edit_with_its_digest_is_listed_as_taken_on_trust(
    audited, capsys, monkeypatch
):
    edit(EDITS["limits"], careful=True)
    monkeypatch.setenv("POISON_AUDIT_KEY", "of another user, who has none of ours")
    code, told = verified(capsys, "--no-files")
    assert code == 0
    assert "TAKEN ON TRUST: the raw scores" in told
    assert "and the limits" in told
    edit(lambda tree: tree["seal"].update(signature=None, signer=None))
    assert "The report is signed by nobody." in verified(capsys, "--no-files")[1]
    # What follows from the rest is computed, whatever the digest.
    for name in ("weights", "decided again", "attacks"):
        shutil.copy("o/report.json", "kept.json")
        edit(EDITS[name], careful=True)
        assert verified(capsys, "--no-files")[0] in (0, 1)
        shutil.copy("kept.json", "o/report.json")
    edit(without_weights, careful=True)
    code, told = verified(capsys, "--no-files")
    assert code == 1
    assert "no file is listed as 'weights'" in told


def test_every_leaf_is_checked_or_listed_as_taken_on_trust(audited, capsys, monkeypatch):
    monkeypatch.setenv("POISON_AUDIT_KEY", "of another user, who has none of ours")
    report = Path("o/report.json")
    tree = json.loads(report.read_text("utf-8"))
    # One leaf of each kind stands for all others.
    kinds = {re.sub(r"\d+", "*", spelt(leaf)): leaf for leaf in leaves(tree) if leaf[0] != "seal"}
    draws = np.random.default_rng(4).permutation(sorted(kinds))[:40].tolist()
    for kind in {*draws, "diagnosis", "cells.*.digest", "notices.*", "environment.command"}:
        if kind in kinds:
            report.write_text(edit_leaf(tree, kinds[kind], careful=True), encoding="utf-8")
            code, told = verified(capsys, "--no-files")
            assert code != 0 or listed(kinds[kind], told), kind


def test_without_its_seal_or_its_comparability_a_report_was_not_checked(audited, capsys):
    edit(lambda tree: tree.pop("seal"))
    code, told = verified(capsys)
    assert code == 3
    assert "NOT CHECKED: seal: The report has no digest over all of it" in told
    edit(lambda tree: tree.update(comparability=None))
    assert "NOT CHECKED: comparability" in verified(capsys)[1]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
def test_what_was_rendered_is_rendered_again(audited, capsys, name):
    file = Path("o", FORMATS[name].file)
    text = file.read_text("utf-8")
    file.write_text(text + " ", encoding="utf-8")
    code, told = verified(capsys)
    assert code == 1
    assert f"DIFFERS: rendered: {file.name}" in told
    assert verified(capsys, "--no-files")[0] == 0
    file.unlink()
    file.symlink_to("../model.safetensors")
    code, told = verified(capsys)
    assert code == 3
    assert f"NOT CHECKED: rendered: {file.name}: Not looked at" in told


def test_a_page_that_says_something_else_differs(audited, capsys):
    page = Path("o/report.html")
    text = page.read_text("utf-8")
    assert "INCONCLUSIVE" in text or "RESIDUAL" in text
    page.write_text(text.replace("INCONCLUSIVE", "CLEAN").replace("RESIDUAL", "CLEAN"), "utf-8")
    assert verified(capsys)[0] == 1


def test_a_page_of_another_version_was_not_checked(audited, capsys, monkeypatch):
    monkeypatch.setattr("poison_audit.commands.verify.renderer", lambda: "0" * 64)
    assert verified(capsys)[0] == 0  # the same bytes all the same
    Path("o/report.md").write_text("older words of poison-audit", encoding="utf-8")
    code, told = verified(capsys)
    assert code == 3
    assert "another version wrote it" in told


def test_a_decision_is_signed_only_where_the_audit_was(audited, capsys, monkeypatch):
    assert invoke(["decide", "o", "-o", "mine", "--alpha", "0.04"]) in (1, 3)
    assert invoke(["verify", "mine"]) == 0
    assert "TRUST" not in capsys.readouterr().out.rpartition("checks agree")[2]
    monkeypatch.setenv("POISON_AUDIT_KEY", "of another user, who measured nothing")
    assert invoke(["decide", "o", "-o", "theirs", "--alpha", "0.04"]) in (1, 3)
    seal = json.loads(Path("theirs/report.json").read_text("utf-8"))["seal"]
    assert seal["signature"] is None
    assert seal["signer"] is None


def test_a_file_that_was_swapped_while_it_was_audited_is_found(audited, capsys, monkeypatch):
    from poison_audit.commands import check

    measured = check.run  # type: ignore[attr-defined]

    def swap(*given, **more):
        found = measured(*given, **more)
        shutil.copy("clean.safetensors", "model.safetensors")
        return found

    monkeypatch.setattr(check, "run", swap)
    shutil.rmtree("o")
    assert invoke(PROBE) == 2
    assert "is not what was read when the audit began" in capsys.readouterr().err
    assert not Path("o/report.json").exists()
