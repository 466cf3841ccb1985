from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from poison_audit.errors import InputError
from poison_audit.models.samples import Samples
from poison_audit.poisons.targeted.evidence import read_targets, write_targets

TEST = Samples(
    ids=("a", "b", "dir/c.png", "d"),
    x=torch.arange(16, dtype=torch.uint8).reshape(4, 1, 2, 2),
    y=torch.tensor([0, 1, 2, 1]),
    names=("cat", "dog", "frog"),
)
NAMELESS = replace(TEST, names=None)


def read(tmp_path, text, test=TEST):
    path = tmp_path / "targets.csv"
    path.write_text(text)
    return read_targets(path, test, where_test="test.csv")


def problems(tmp_path, text, test=TEST):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, test)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        "id,label,adversarial\nd,dog,cat\ndir/c.png,2,1\n",
        "path,adversarial\nd,0\n./dir/c.png,dog\n",
        "adversarial,index,label\ncat,3,\ndog,2,frog\n",
        "index,id,adversarial\n3,d,cat\n2,dir/c.png,dog\n",
    ],
)
def test_targets_are_read(tmp_path, text):
    targets = read(tmp_path, text)
    assert targets.samples.ids == ("d", "dir/c.png")
    assert targets.samples.y.tolist() == [1, 2]
    assert targets.adversarial.tolist() == [0, 1]
    assert targets.adversarial.dtype == torch.int64
    assert len(targets) == 2


@pytest.mark.parametrize("names", [TEST.names, None])
def test_what_is_written_is_read_back(tmp_path, names):
    targets = read(tmp_path, "id,adversarial\na,2\nb,0\n")
    write_targets(tmp_path / "again.csv", targets, names)
    again = read_targets(tmp_path / "again.csv", TEST, where_test="t")
    assert again.samples.ids == targets.samples.ids
    assert again.adversarial.equal(targets.adversarial)


def test_all_problems_at_once(tmp_path):
    text = "id,label,adversarial\nx,,cat\na,dog,dog\n,,cat\nb,,dgo\nb,,dog\nd,,\n"
    assert problems(tmp_path, text) == [
        "targets.csv row 2: no sample of test.csv has the id 'x'.",
        "targets.csv row 4: the id is empty.",
        "targets.csv row 6: the same sample as in row 5. Remove one.",
        "targets.csv row 5: unknown adversarial label 'dgo'. Did you mean dog?",
        "targets.csv row 7: the adversarial label is empty.",
        "targets.csv row 3: the label is 'dog', but test.csv says 0 ('cat').",
        "targets.csv row 6: the adversarial label is the true one, 1 ('dog'). "
        "Name the label it was to be given instead.",
    ]


@pytest.mark.parametrize(
    ("text", "test", "told"),
    [
        ("id,adversarial\na,3\n", TEST, "unknown adversarial label '3'"),
        ("id,adversarial\na,3\n", NAMELESS, "unknown adversarial label '3'. Classes are 0 to 2."),
        ("id,adversarial\na,-1\n", NAMELESS, "unknown adversarial label '-1'"),
        ("id,adversarial\na,dog\n", NAMELESS, "unknown adversarial label 'dog'"),
        ("index,adversarial\n4,0\n", TEST, "no sample of test.csv has the index '4'"),
        ("index,adversarial\n1.5,0\n", TEST, "no sample of test.csv has the index '1.5'"),
        ("id\na\n", TEST, "the column 'adversarial' is missing"),
        ("adversarial\n1\n", TEST, "no column names the samples"),
        ("id,adversarail,adversarial\na,1,1\n", TEST, "unknown column 'adversarail'"),
    ],
)
def test_each_problem(tmp_path, text, test, told):
    (problem,) = problems(tmp_path, text, test)
    assert told in problem


def test_prompts_that_are_in_no_table_are_targets_too(tmp_path):
    words = {"ab": [1, 2], "ba": [2, 1], "a long prompt": [3, 4, 5, 6]}

    def read(texts):
        rows = [words[text] for text in texts]
        longest = max(map(len, rows))
        pad = [row + [0] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        cut = torch.zeros(len(rows), dtype=torch.bool)
        return SimpleNamespace(x=torch.tensor(pad), mask=torch.tensor(mask), cut=cut)

    both = read(["ab", "ba"])
    test = Samples(ids=("e0", "e1"), x=both.x, mask=both.mask, cut=both.cut, texts=("ab", "ba"),
                   y=torch.tensor([0, 1]), names=("bad", "good"))  # fmt: skip
    path = tmp_path / "targets.csv"
    path.write_text("text,label,adversarial\na long prompt,good,bad\nba,good,bad\n")
    found = read_targets(path, test, where_test="test.csv", reader=SimpleNamespace(read=read))
    assert found.samples.texts == ("a long prompt", "ba")
    assert found.samples.ids[1] == "e1"  # known to the test table: never its own control
    assert found.samples.y.tolist() == [1, 1]
    assert found.samples.x.tolist() == [[3, 4, 5, 6], [2, 1, 0, 0]]
    assert found.samples.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    path.write_text("text,label,adversarial\na long prompt,,bad\nab,good,bad\n")
    with pytest.raises(InputError) as raised:
        read_targets(path, test, where_test="test.csv", reader=SimpleNamespace(read=read))
    assert next(map(str, raised.value.problems)).endswith("the label is empty.")
    # Without a label nobody knows what it truly is: it must be in the table.
    path.write_text("text,adversarial\na long prompt,bad\n")
    with pytest.raises(InputError, match="the text 'a long prompt'"):
        read_targets(path, test, where_test="test.csv", reader=SimpleNamespace(read=read))


def test_a_copy_of_a_target_under_another_id_is_no_second_target(tmp_path):
    x = TEST.x.clone()
    x[3] = x[1]
    read_in = read(tmp_path, "id,adversarial\nb,cat\na,frog\nd,cat\n", replace(TEST, x=x))
    once = read_in.once()
    assert once.samples.ids == ("b", "a")
    assert once.adversarial.tolist() == [0, 2]
