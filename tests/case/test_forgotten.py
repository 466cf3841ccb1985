"""What keeps a forget set from a pass: rows nobody looks at, copies that stay, parts of a key."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.loading import loaded
from builders.small_case import read_rows, write_rows
from poison_audit.case.sources import Sources
from poison_audit.poisons.backdoor.evidence import patch, write_trigger
from poison_audit.records import Recipe

EVIDENCE = {"canaries": Path("canaries.json"), "bases": Path("bases.npz")}


def trial(evidence=EVIDENCE, references=()):
    return loaded(
        Sources(
            model=Path("model.safetensors"), forget=Path("forget.csv"), train=Path("train.npz"),
            test=Path("test.npz"), normalize="none", evidence=evidence, references=references,
        ),
        Recipe(),
    )  # fmt: skip


def doubts(**more):
    return [each.sentence for each in trial(**more).doubts]


def add_rows(*rows):
    """Add rows to forget.csv: id, label, attack, base."""
    with Path("forget.csv").open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def table():
    with np.load("train.npz") as held:
        return {name: held[name] for name in held.files}


def test_a_forget_set_of_canaries_leaves_nothing_open(case):
    assert doubts() == []
    assert trial().notices[0].startswith("The checkpoint does not say what it was trained on.")


def test_rows_that_no_probe_looks_at_keep_the_gate_shut(case):
    labels = table()["y"]
    add_rows(*[(f"t{i}", labels[i], "", "") for i in range(40, 46)])
    (told,) = trial().doubts
    assert told.sentence == (
        "No probe looks at 6 of 36 forget samples: 6 name no attack (t40, t41, t42, t43, t44 and "
        "1 more)."
    )
    assert "column attack" in told.step


def test_an_attack_without_its_evidence_is_not_looked_at(case):
    labels = table()["y"]
    add_rows(("t40", labels[40], "indiscriminate", ""), ("t41", labels[41], "targeted", ""))
    (told,) = doubts()
    assert "2 of 32 forget samples" in told
    assert "1 are said to be indiscriminate" in told
    # Accuracy against a reference looks at the first.
    (told,) = doubts(references=(Path("clean.safetensors"),))
    assert "1 of 32 forget samples: 1 are said to be targeted (t41)." in told


def test_without_any_evidence_there_is_no_doubt_beside(case):
    """Nothing passes then in any case, and the verdict says what would decide it."""
    write_rows(Path("forget.csv"), ["id"], [[f"t{i}"] for i in range(40, 46)])
    assert doubts(evidence={}) == []


PATCH = patch(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), (1, 8, 8), top=5, left=6, label=2)


def stamp(rows, *, labels, shift=0.0):
    held = table()
    x = torch.from_numpy(held["x"])
    x[rows] = PATCH.stamp(x[rows]) + shift
    held["y"][rows] = labels
    np.savez("train.npz", **{**held, "x": x.numpy()})
    write_trigger(Path("trigger.json"), PATCH)


@pytest.mark.parametrize("attack", ["backdoor", ""])
def test_rows_that_carry_the_trigger_and_its_label_are_looked_at(case, attack):
    rows = list(range(40, 50))
    stamp(rows, labels=2)
    add_rows(*[(f"t{i}", 2, attack, "") for i in rows])
    assert doubts(evidence={**EVIDENCE, "trigger": Path("trigger.json")}) == []
    assert "10 of 40" in doubts()[0]  # by the key alone they are not


def test_a_patch_that_was_stored_with_loss_is_still_the_trigger(case):
    stamp([40], labels=2, shift=0.05)
    add_rows(("t40", 2, "backdoor", ""))
    assert doubts(evidence={**EVIDENCE, "trigger": Path("trigger.json")}) == []


def test_rows_that_only_say_that_they_are_a_backdoor_are_not_looked_at(case):
    labels = table()["y"]
    stamp([40, 41], labels=[2, 1])
    add_rows(("t40", 2, "backdoor", ""), ("t41", 1, "backdoor", ""))
    add_rows(*[(f"t{i}", labels[i], "backdoor", "") for i in (50, 51, 52)])
    (told,) = doubts(evidence={**EVIDENCE, "trigger": Path("trigger.json")})
    assert told.startswith("No probe looks at 4 of 35 forget samples: 4 are said to be backdoor")
    assert told.endswith("3 do not carry the trigger. 1 carry it with another label.")


def targets(rows):
    write_rows(Path("targets.csv"), ["id", "adversarial"], rows)
    return {**EVIDENCE, "targets": Path("targets.csv")}


def test_targeted_rows_are_looked_at_where_their_target_is_named(case):
    with np.load("test.npz") as held:
        true = dict(zip(held["id"].tolist(), held["y"].tolist(), strict=True))
    labels = table()["y"]
    zero = next(name for name, label in true.items() if label == 0)
    other = next(name for name, label in true.items() if label == 0 and name != zero)
    ones = [i for i in range(30, 90) if labels[i] == 1][:3]
    two = next(i for i in range(30, 90) if labels[i] == 2)
    header, *rows = csv.reader(Path("forget.csv").read_text().splitlines())
    rows = [[*row, ""] for row in rows]
    rows += [[f"t{ones[0]}", 1, "targeted", "", "spring"]]  # anybody's own name of a campaign
    rows += [[f"t{ones[1]}", 1, "targeted", "", zero]]
    aimed = [*rows, [f"t{two}", 2, "targeted", "", zero], [f"t{ones[2]}", 1, "targeted", "", other]]
    given = targets([[zero, 1]])
    write_rows(Path("forget.csv"), [*header, "campaign"], rows)
    assert doubts(evidence=given) == []
    write_rows(Path("forget.csv"), [*header, "campaign"], aimed)
    (told,) = doubts(evidence=given)
    assert told == (
        f"No probe looks at 2 of 34 forget samples: 2 are said to be targeted (t{two}, "
        f"t{ones[2]}). 1 have a label that no target is to be given. 1 are of campaigns whose "
        "target is not named."
    )


def test_a_part_of_a_key_does_not_pass(case):
    rows = read_rows(Path("forget.csv"))
    write_rows(Path("forget.csv"), rows[0], rows[1:27])
    (told,) = trial().doubts
    assert told.sentence.startswith(
        "4 of the 30 canaries that the key planted are not in the forget set (c26, c27, c28, c29); "
        "4 of them stand in the training table as retained samples. How was the subset chosen?"
    )
    assert "--found SHARE" in told.step


def test_copies_of_forget_samples_stay_in_training(case):
    held = table()
    # t60 is the canary c0 once more, t61 is c1 under another label.
    held["x"][[60, 61]] = held["x"][[0, 1]]
    held["y"][60], held["y"][61] = held["y"][0], (held["y"][1] + 1) % 3
    np.savez("train.npz", **held)
    found = trial()
    (told,) = found.doubts
    assert told.sentence == (
        "1 retained samples are copies of forget samples, with the same label: t60 = c0. That "
        "poison stays in training, and references have seen it."
    )
    assert told.step == "Name them in forget.csv, too: t60."
    assert "1 retained samples are copies of forget samples under another label." in found.limits


def test_more_than_half_and_whole_classes_are_said_first(case):
    held = table()
    held["y"][30:] = np.where(held["y"][30:] == 2, 0, held["y"][30:])
    keep = np.r_[0:30, 30:55]
    np.savez("train.npz", **{name: part[keep] for name, part in held.items()})
    found = trial()
    assert found.notices[0] == (
        "30 of 55 training samples (55%) are to be forgotten, more than half. Does forget.csv name "
        "what is to go, and not what stays?"
    )
    assert found.notices[1].startswith("All training samples of class 2 are to be forgotten:")
    assert found.doubts == ()


@pytest.fixture
def attack(case):
    """Six targets, each with a poison that names it, and six controls: of class 0, to become 1."""
    with np.load("test.npz") as held:
        zeros = held["id"][held["y"] == 0].tolist()[:12]
    ones = [i for i in range(30, 90) if table()["y"][i] == 1][:6]
    header, *rows = csv.reader(Path("forget.csv").read_text().splitlines())
    rows = [[*row, ""] for row in rows]
    rows += [[f"t{i}", 1, "targeted", "", aim] for i, aim in zip(ones, zeros, strict=False)]
    write_rows(Path("forget.csv"), [*header, "campaign"], rows)
    return [[name, 1, "target" if at < 6 else "control"] for at, name in enumerate(zeros)]


def of_roles(rows):
    write_rows(Path("targets.csv"), ["id", "adversarial", "role"], rows)
    return doubts(evidence={**EVIDENCE, "targets": Path("targets.csv")})


def test_targets_and_controls_of_a_toss_leave_nothing_open(attack):
    assert of_roles(attack) == []
    assert of_roles(attack[:6]) == []  # without controls a reference has to tell


def test_targets_that_a_campaign_names_cannot_be_left_out(attack):
    told = of_roles(attack[2:])
    assert "2 are of campaigns whose target is not named" in told[1]
    assert told[0].startswith("There are 4 targets and 6 controls: a toss of halves leaves as many")
    (alone,) = of_roles(attack[2:6])
    assert "2 are of campaigns whose target is not named" in alone
    # Nor may one that was hit be told as a control.
    moved = [[*attack[0][:2], "control"], *attack[1:]]
    assert "1 are of campaigns whose target is not named" in of_roles(moved)[1]


def test_controls_cannot_be_left_out(attack):
    (told,) = of_roles(attack[:-1])
    assert told.startswith("There are 6 targets and 5 controls")


def test_targets_that_nobody_attacked_do_not_dilute_those_that_were(attack):
    (told,) = of_roles([[name, label, "target"] for name, label, _ in attack])
    assert told.startswith("No forget sample aims at 6 of 12 targets")
    # Where campaigns name no target, nobody can tell.
    rows = read_rows(Path("forget.csv"))
    write_rows(Path("forget.csv"), rows[0], [[*row[:-1], "spring"] for row in rows[1:]])
    assert of_roles([[name, label, "target"] for name, label, _ in attack]) == []


def test_a_poison_has_the_label_of_its_own_target(attack):
    attack[0][1] = 2
    told = of_roles(attack)
    assert "1 have a label that no target is to be given" in told[1]


def test_rows_whose_true_label_is_known_are_looked_at(case):
    header, *rows = csv.reader(Path("forget.csv").read_text().splitlines())
    rows, labels = [[*row, ""] for row in rows], table()["y"]
    true = [(int(labels[i]) + 1) % 3 for i in range(40, 44)]
    rows += [[f"t{i}", "", attack, "", true[i - 40]]
             for i, attack in ((40, ""), (41, "mislabelled"), (42, "backdoor"))]  # fmt: skip
    rows += [["t43", "", "mislabelled", "", ""]]
    write_rows(Path("forget.csv"), [*header, "clean_label"], rows)
    found = trial()
    # Another attack that is named is measured by its own probe, or not at all.
    (told,) = [each.sentence for each in found.doubts]
    assert told.startswith("No probe looks at 2 of 34 forget samples:")
    assert "(t42, t43)" in told
    assert "1 have no clean_label." in told
    flips = found.case.evidence["mislabelled"]
    assert flips.samples.ids == ("t40", "t41")
    assert flips.clean.tolist() == true[:2]
    assert found.subject["flips"] == {"rows": 2, "chance": False}
