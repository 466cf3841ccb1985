"""A case with a poison that nobody but this test knows: what its reader brings is all there is."""

from pathlib import Path

import pytest
import torch

from poison_audit.case.files import Evidence
from poison_audit.case.load import load_trial
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.case.sources import Sources
from poison_audit.errors import InputError, Problem
from poison_audit.records import Recipe

POISONS = {
    "gaussian": Poison(name="gaussian", readings=(), keyed=True),
    "label-blend": Poison(
        name="label-blend", readings=(), keyed=True,
        files=(EvidenceFile(name="blend", help="b"), EvidenceFile(name="more", help="m")),
    ),
}  # fmt: skip


def sources(**more):
    return Sources(
        model=Path("model.safetensors"), forget=Path("forget.csv"), train=Path("train.npz"),
        test=Path("test.npz"), normalize="none", **more,
    )  # fmt: skip


def load(reader, **more):
    return load_trial(
        sources(**more), recipe=Recipe(), device="cpu", poisons=POISONS,
        readers={"label-blend": reader},
    )  # fmt: skip


def test_all_that_a_reader_brings_arrives(case):
    seen = {}

    def reader(files, device, problems):
        seen.update(files=files, device=device)
        marked = files.train.x.clone()
        marked[:, 0, 0, 0] = 7
        return Evidence(
            planted=("blend", 3),
            subject={"blend": {"sha256": "ab"}, "other": None},
            train=type(files.train)(
                ids=files.train.ids, x=marked, y=files.train.y, names=files.train.names
            ),
            limits=("Cannot show it.",),
            trust=("Trust it.",),
        )

    Path("blend.json").write_text("{}")
    Path("forget.csv").write_text("index,attack,canary\n1,label-blend,\n0,,k\n2,gaussian,k2\n")
    found = load(reader, evidence={"blend": Path("blend.json")})
    assert found.case.evidence == {"label-blend": ("blend", 3)}
    assert found.case.forget.x[:, 0, 0, 0].tolist() == [7, 7, 7]
    assert (found.case.retain.x[:, 0, 0, 0] == 7).all()
    assert not (found.case.test.x[:, 0, 0, 0] == 7).all()
    assert (found.subject["blend"], found.subject["other"]) == ({"sha256": "ab"}, None)
    assert found.limits == ("Cannot show it.", "Trust it.")
    assert [role for role, _ in found.files] == ["weights", "forget", "train", "test", "blend"]
    # Whose key names a row: its attack's, where that has one; else the first that there is.
    forget = seen["files"].forget
    assert forget.keys == ("label-blend", "gaussian", "gaussian")
    assert forget.canaries == (forget.ids[0], "k", "k2")
    assert torch.device(seen["device"]).type == "cpu"


def test_a_reader_is_asked_whatever_else_is_wrong_and_what_it_says_is_told(case):
    def reader(files, device, problems):
        assert files.forget is None
        problems.append(Problem("is no blend", "blend.json"))
        with problems.collecting():
            raise InputError([Problem("one"), Problem("two")])
        return Evidence(planted=None, subject={})

    Path("forget.csv").write_text("index,attack\n1,label-blnd\n")
    with pytest.raises(InputError) as caught:
        load(reader)
    assert [str(problem) for problem in caught.value.problems] == [
        "forget.csv row 2: unknown attack 'label-blnd'. Did you mean label-blend?",
        "blend.json: is no blend.",
        "one.",
        "two.",
    ]


def test_a_poison_that_nothing_is_known_of_is_not_in_the_case(case):
    found = load(lambda files, device, problems: Evidence(planted=None, subject={"blend": None}))
    assert found.case.evidence == {}
    assert found.subject["blend"] is None
