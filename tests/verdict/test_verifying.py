"""`verify` finds what was changed after an audit, and nothing else."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.audits import audits, small_audit
from builders.leaves import changed
from builders.small_case import FLAGS
from poison_audit.atomic import from_json, to_json
from poison_audit.cli import invoke
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.record import AuditRecord
from poison_audit.verdict.verify import summary, verify, verify_exit_code

ROOT = Path(__file__).parents[2]


def code(record: AuditRecord) -> int:
    checks = verify(record, root=None, folder=Path(), look_at_files=False)
    assert summary(checks).splitlines()[-1].startswith(f"exit {verify_exit_code(checks)}: ")
    return verify_exit_code(checks)


def edited(record: AuditRecord, path: list, change) -> AuditRecord:
    """A record with one leaf of its JSON changed."""
    tree = json.loads(to_json(record))
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change(at[path[-1]])
    return from_json(AuditRecord, json.dumps(tree))


@pytest.fixture(scope="module")
def record():
    made = small_audit()
    return replace(made, comparability=comparability(made))


def test_what_was_not_changed_agrees(record):
    assert code(record) == 0


GAUSSIAN = ["cells", 0, "measurements", 0, "evidence"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ([*GAUSSIAN, "scores", 7], lambda x: x + 0.01),
        ([*GAUSSIAN, "scores"], lambda x: x[:-1]),
        ([*GAUSSIAN, "dropped"], lambda x: x + 1),
        (["cells", 0, "measurements", 1, "evidence", "wins", 0], lambda x: x + 1),
        (["cells", 0, "measurements", 4, "evidence", "hits", 0], lambda x: 1 - x),
        (["cells", 1, "measurements", 8, "evidence", "only_deployed"], lambda x: x + 1),
        (["cells", 0, "measurements", 0, "suspect"], lambda _: "a control failed"),
        (["cells", 1, "woken"], lambda _: []),
        (["cells", 1, "woken", 0, "way"], lambda _: "rounded"),
        (["cells", 1, "woken", 0, "samples"], lambda x: x + 1),
        (["cells", 1, "woken", 0, "measurements", 1, "evidence", "hits", 0], lambda x: 1 - x),
        (["cells", 1, "woken", 1, "measurements", 0, "evidence", "hits", 0], lambda x: 1 - x),
        (["cells", 1, "woken", 1, "lr"], lambda x: 2 * x),
        (["plan", "reaudit"], lambda _: True),
        (["cells"], lambda x: x[::-1]),
        (["cells"], lambda x: x[:1]),
        (["plan", "policy", "tolerances", "gaussian"], lambda _: 2.0),
        (["plan", "policy", "alpha"], lambda _: 0.01),
        (["plan", "policy", "gate"], lambda _: "gd"),
        (["plan", "policy", "exit_zero"], lambda _: True),
        (["findings", 0, "outcome"], lambda _: "CLEAN"),
        (["findings", 0, "statistic"], lambda x: x * (1 + 1e-10)),
        (["findings", 0, "interval", "low"], lambda x: x + 1e-4),
        (["findings", 0, "reason"], lambda x: x[:-1]),
        (["findings", 0, "gating"], lambda _: False),
        (["findings", 0, "details", "tpr"], lambda x: x + 0.1),
        (["findings"], lambda x: x[1:]),
        (["verdict", "sentence"], lambda _: "The deployed model shows no residual poison."),
        (["verdict", "next_step"], lambda _: "Ship it."),
        (["verdict", "candidates", 0, "outcome"], lambda _: "CLEAN"),
        (["sanity", "low"], lambda x: x + 0.01),
        (["sanity", "correct"], lambda x: x + 1),
        (["comparability"], lambda x: "0" * 64),
    ],
)
def test_what_was_changed_differs(record, path, change):
    assert code(edited(record, path, change)) == 1


def test_a_changed_exit_code_differs(record):
    tree = json.loads(to_json(record))
    tree["verdict"]["exit_code"] = 0
    assert code(from_json(AuditRecord, json.dumps(tree))) == 1


def leaves(tree, path=()):
    """The path of every leaf."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, (*path, number))
    else:
        yield path


# What no score and no rule decides: names.
FREE = {
    "label", "labels", "adversarial", "targets", "reference", "neither", "base", "test", "chose",
    "tolerated",  # of an accuracy that nobody stated: only a seal holds it, and here is none
}  # fmt: skip


@pytest.mark.slow
def test_any_number_that_was_changed_differs(record):
    tree = json.loads(to_json(record))
    found = [("plan", "policy", *p) for p in leaves(tree["plan"]["policy"])]
    for part in ("findings", "verdict", "sanity"):
        found += [(part, *p) for p in leaves(tree[part])]
    for i, cell in enumerate(tree["cells"]):
        for j, m in enumerate(cell["measurements"]):
            where = ("cells", i, "measurements", j, "evidence")
            found += [(*where, *p) for p in leaves(m["evidence"])]
    found = [p for p in found if not FREE & set(map(str, p))]
    draws = Rng(5).numpy()
    caught = 0
    for number in draws.choice(len(found), size=150, replace=False):
        path = list(found[number])
        try:
            other = edited(record, path, changed)
        except InputError:
            caught += 1  # not even a report any more
            continue
        caught += code(other) == 1
    assert caught == 150


@pytest.mark.slow
@settings(max_examples=20)
@given(audits())
def test_honest_audits_verify(record):
    assert code(replace(record, comparability=comparability(record))) == 0


@pytest.mark.slow
@settings(max_examples=50)
@given(data=st.data())
def test_evidence_of_any_shape_is_told_and_never_raises(data):
    record = small_audit()
    record = replace(record, comparability=comparability(record))
    tree = json.loads(to_json(record))
    cell = data.draw(st.integers(0, 1))
    number = data.draw(st.integers(0, 7))
    evidence = tree["cells"][cell]["measurements"][number]["evidence"]
    key = data.draw(st.sampled_from(sorted(evidence)))
    wrong = data.draw(
        st.sampled_from([None, "x", [], {}, -1, [None], ["a"], [[]], 0, 1e300, True, {"a": 1}])
    )
    mode = data.draw(st.sampled_from(["replace", "drop", "all"]))
    if mode == "replace":
        evidence[key] = wrong
    elif mode == "drop":
        del evidence[key]
    else:
        tree["cells"][cell]["measurements"][number]["evidence"] = {"a": wrong}
    checks = verify(
        from_json(AuditRecord, json.dumps(tree)), root=None, folder=Path(), look_at_files=False
    )
    assert verify_exit_code(checks) in ((1,) if mode == "all" else (0, 1))


@pytest.fixture
def audited(case):
    shutil.copy("forget.csv", "kept.csv")
    given = ["--methods", "gd,ssd", "--candidate", "mine=clean.safetensors", "-q", "--out", "o"]
    assert invoke(["check", "model.safetensors", "--forget", "forget.csv", *FLAGS, *given]) < 4
    return case


def test_files_are_compared(audited, capsys, monkeypatch):
    assert invoke(["verify", "o"]) == 0
    # A swapped model, an edited digest, a file that is gone.
    weights = (audited / "model.safetensors").read_bytes()
    shutil.copy(audited / "clean.safetensors", audited / "model.safetensors")
    capsys.readouterr()
    assert invoke(["verify", "o"]) == 1
    assert "DIFFERS: file: weights (model.safetensors)" in capsys.readouterr().out
    assert invoke(["verify", "o", "--no-files"]) == 0
    (audited / "model.safetensors").write_bytes(weights)
    record = json.loads((audited / "o/report.json").read_text("utf-8"))
    for change in (
        lambda r: r["files"][0].update(sha256="0" * 64),
        lambda r: r["subject"].update(model_sha256="0" * 64),
        lambda r: r["subject"]["canaries"].update(commitment="0" * 64),
        lambda r: r["subject"].update(forget_sha256="0" * 64),
    ):
        wrong = copy.deepcopy(record)
        change(wrong)
        (audited / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
        assert invoke(["verify", "wrong.json"]) == 1
    assert invoke(["verify", "o"]) == 0
    (audited / "test.npz").rename(audited / "moved.npz")
    assert invoke(["verify", "o"]) == 3
    assert "NOT CHECKED: file: test (test.npz)" in capsys.readouterr().out
    (audited / "moved.npz").rename(audited / "test.npz")
    monkeypatch.chdir(audited.parent)
    assert invoke(["verify", "case/o", "--root", "case"]) == 0
    assert invoke(["verify", "case/o", "--root", "case/o"]) == 3


def test_a_root_is_not_left(audited, capsys):
    record = json.loads((audited / "o/report.json").read_text("utf-8"))
    for path in ("../case/model.safetensors", str(audited / "model.safetensors"), "C:\\x"):
        record["files"][0]["path"] = path
        (audited / "wrong.json").write_text(json.dumps(record), encoding="utf-8")
        capsys.readouterr()
        assert invoke(["verify", "wrong.json", "--root", "."]) == 1
        told = capsys.readouterr().out.splitlines()
        assert [line for line in told if "seal.digest" in line and line.startswith("DIFFERS")]
        assert [line for line in told if line.startswith("NOT CHECKED: file: weights")]


def test_it_needs_neither_torch_nor_matplotlib(audited):
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'transformers', 'matplotlib'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from poison_audit.cli import invoke\n"
        "codes = [invoke(['verify', 'o']), invoke(['diff', 'o', 'o']),\n"
        "         invoke(['decide', 'o', '--tolerance', 'gaussian=0.9']),\n"
        "         invoke(['render', 'o', '--format', 'sarif'])]\n"
        "print('codes', codes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=audited, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    told = json.loads(done.stdout.rsplit("codes ", 1)[1])
    # What only matplotlib draws is not looked at, and verify says so.
    assert told[:2] == [3, 0], done.stderr
    assert "NOT CHECKED: rendered: report.html: Not looked at: matplotlib" in done.stdout
    assert all(each in (0, 1, 3) for each in told)
