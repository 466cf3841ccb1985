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


def test_columns_must_name_the_same_sample_row_by_row(tmp_path):
    assert find(tmp_path, 'index,text,id\n1,"another, with a comma",v\n0,,u\n') == [1, 0]
    # A text that two samples have is one of them by its id.
    assert find(tmp_path, "text,id\ntwice,x\n") == [3]
    assert find(tmp_path, "index,text,id\n4,a film,v\n2,twice,w\n1,twice,v\n,,\n") == [
        "rows.csv row 2: the id 'v' is sample 1 ('v') and the text 'a film' is sample 0 ('u') and "
        "the index '4' is sample 4 ('dir/y.png'). "
        "Correct one, or leave out the column that is of another use.",
        2,
        "rows.csv row 4: the id 'v' is sample 1 ('v') and the text 'twice' is sample 2 ('w') and "
        "the index '1' is sample 1 ('v'). "
        "Correct one, or leave out the column that is of another use.",
    ]
    assert find(tmp_path, "index,id\n7,v\n") == [
        "rows.csv row 2: no sample of train has the index '7'."
    ]


def test_columns_of_which_a_table_has_none_say_nothing(tmp_path):
    assert find(tmp_path, "id,path,text\nv,elsewhere.png,a caption\n", texts=None) == [1]
    assert find(tmp_path, "id,path\nv,dir/y.png\n", texts=None) == [
        "rows.csv row 2: the id 'v' is sample 1 ('v') and the path 'dir/y.png' is sample 4 "
        "('dir/y.png'). Correct one, or leave out the column that is of another use."
    ]


def test_numbers_as_pandas_writes_them(tmp_path):
    assert find(tmp_path, "index\n4.0\n1.000000000000000000e+00\n") == [4, 1]
    assert "has the index '1.5'" in find(tmp_path, "index\n1.5\n")[0]


def pictures(folder, paths, **more):
    return Samples(
        ids=tuple(f"s{i}" for i in range(len(paths))), x=torch.zeros(len(paths), 1, 2, 2),
        y=torch.zeros(len(paths), dtype=torch.int64), paths=paths, folder=folder, **more,
    )  # fmt: skip


def test_files_are_named_from_wherever_one_looks_at_them(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "train"
    samples = pictures(folder, ("cat/1.png", "cat/2.png", "dog/1.png"))
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "forget.csv"
    monkeypatch.chdir(tmp_path)
    named = {
        "cat/2.png": 1, "./dog//1.png": 2, "cat\\1.png": 0, f"{folder}/dog/1.png": 2,
        "../data/train/cat/1.png": 0, "data/train/cat/2.png": 1,
        "data\\train\\cat\\2.png": 1,
    }  # fmt: skip
    path.write_text("path\n" + "".join(f"{name}\n" for name in named), encoding="utf-8")
    found = find_samples(read_csv(path, needed=()), samples, where="train")
    assert found == list(named.values())
    for name in (
        "train/cat/1.png",
        "C:\\data\\train\\cat\\1.png",
        "/elsewhere/cat/1.png",
        "../1.png",
    ):
        path.write_text(f"path\n{name}\n", encoding="utf-8")
        (problem,) = find_samples(read_csv(path, needed=()), samples, where="train")
        assert str(problem).endswith(f"Write paths relative to {folder}.")


def test_an_order_in_doubt_gives_no_positions(tmp_path):
    samples = pictures(tmp_path, ("a", "b"), doubted_order="counts twice")
    path = write(tmp_path, "index\n0\n")
    with pytest.raises(InputError, match=r"counts twice\. Name them by path or id"):
        find_samples(read_csv(path, needed=()), samples, where="train")
    path = write(tmp_path, "index,path\n0,b\n")
    assert "the path 'b' is sample 1" in str(
        find_samples(read_csv(path, needed=()), samples, where="train")[0]
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id\nz\n", "rows.csv row 2: no sample of train has the id 'z'."),
        ("id,label\n,1\n", "rows.csv row 2: the id is empty."),
        (
            "index\n5\n",
            "rows.csv row 2: no sample of train has the index '5'. Positions count from 0.",
        ),
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
