"""Rows that name samples: by id, path, text or index."""

from __future__ import annotations

import pytest
import torch

from poison_audit.case.csvfile import read_csv
from poison_audit.case.forget import read_forget
from poison_audit.case.rows import find_samples, repeated
from poison_audit.errors import InputError, Problem
from poison_audit.models.samples import Samples
from poison_audit.poisons.readings import POISONS
from poison_audit.poisons.targeted.evidence import read_targets

TEXTS = ("a film", "another, with a comma", "twice", "twice", 'it said "no"\nand ended')


def samples(texts=TEXTS):
    return Samples(
        ids=("u", "v", "w", "x", "dir/y.png"), x=torch.zeros(5, 1, dtype=torch.int64),
        y=torch.tensor([0, 1, 0, 1, 0]), texts=texts, mask=torch.ones(5, 1, dtype=torch.int64),
    )  # fmt: skip


def write(tmp_path, content):
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    return tmp_path / "rows.csv"


def find(tmp_path, content, texts=TEXTS):
    found = find_samples(
        read_csv(write(tmp_path, content), needed=()), samples(texts), where="train"
    )
    return [str(item).removeprefix(f"{tmp_path}/") if isinstance(item, Problem) else item
            for item in found]  # fmt: skip


def test_each_column_names_samples(tmp_path):
    assert find(tmp_path, "id\nw\nu\n") == [2, 0]
    assert find(tmp_path, "path\ndir/y.png\n./dir//y.png\n") == [4, 4]
    assert find(tmp_path, "index\n4\n0\n") == [4, 0]
    assert find(tmp_path, 'text\n"another, with a comma"\na film\n') == [1, 0]
    assert find(tmp_path, 'text\n"it said ""no""\nand ended"\n a film  \n') == [4, 0]


def test_the_first_column_decides_for_every_row(tmp_path):
    assert find(tmp_path, "index,text,id\n4,a film,v\n9,nothing,u\n") == [1, 0]
    assert find(tmp_path, "index,text\n4,a film\n") == [0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id\nz\n", "rows.csv row 2: no sample of train has the id 'z'."),
        ("id,label\n,1\n", "rows.csv row 2: the id is empty."),
        ("index\n5\n", "rows.csv row 2: no sample of train has the index '5'."),
        ("index\n-1\n", "rows.csv row 2: no sample of train has the index '-1'."),
        ("index\nfirst\n", "rows.csv row 2: no sample of train has the index 'first'."),
        ("text\nA film\n", "rows.csv row 2: no sample of train has the text 'A film'."),
        (
            "text\ntwice\n",
            "rows.csv row 2: 2 samples of train have the text 'twice'. Name it by id or index.",
        ),
    ],
)
def test_rows_that_name_nothing_or_too_much(tmp_path, content, said):
    assert find(tmp_path, content) == [said]


def test_a_long_text_is_not_printed_whole(tmp_path):
    (said,) = find(tmp_path, f"text\n{'film ' * 2000}\n")
    assert len(said) < 300


def test_pictures_have_no_text(tmp_path):
    assert "no sample of train has the text" in find(tmp_path, "text\na film\n", texts=None)[0]


def test_a_file_that_names_nothing(tmp_path):
    with pytest.raises(InputError, match=r"no column names the samples\. Name them by id, path"):
        find(tmp_path, "label\n1\n")


def test_values_that_come_again(tmp_path):
    table = read_csv(write(tmp_path, "id\na\nb\na\n\nb\nc\n"), needed=())
    values = [row["id"] for row in table.rows]
    said = [str(problem) for problem in repeated("sample", values, table)]
    assert said == [
        f"{tmp_path}/rows.csv row 4: the same sample as in row 2. Remove one.",
        f"{tmp_path}/rows.csv row 6: the same sample as in row 3. Remove one.",
    ]
    assert repeated("canary", [None, None, 0, "", ""], table) != []
    assert repeated("canary", [None] * 5, table) == []


# In the files that use it


def test_forget_sets_and_targets_by_text(tmp_path):
    path = write(tmp_path, "text,label\na film,0\n")
    assert read_forget(path, samples(), where_train="train", poisons=POISONS).positions == (0,)
    path = write(tmp_path, "text,adversarial\na film,1\n")
    assert read_targets(path, samples(), where_test="test").samples.ids == ("u",)


def test_an_ambiguous_text_is_refused_in_both(tmp_path):
    more = "2 samples of train have the text 'twice'. Name it by id or index."
    with pytest.raises(InputError, match=more):
        read_forget(
            write(tmp_path, "text\ntwice\n"), samples(), where_train="train", poisons=POISONS
        )
    path = write(tmp_path, "text,adversarial\ntwice,1\n")
    with pytest.raises(InputError, match=more.replace("train", "test")):
        read_targets(path, samples(), where_test="test")
