import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poison_audit.case.copies import overlap
from poison_audit.case.forget import content_digest, read_forget, split
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples
from poison_audit.poisons.readings import POISONS

IDS = ("a", "b", "dir/c.png", "d", "e")


def train(x=None):
    if x is None:
        x = torch.arange(5 * 3 * 4, dtype=torch.uint8).reshape(5, 3, 2, 2)
    return Samples(ids=IDS, x=x, y=torch.tensor([0, 1, 2, 1, 0]), names=("cat", "dog", "frog"))


def read(tmp_path, text):
    path = tmp_path / "forget.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_forget(path, train(), where_train="train.csv", poisons=POISONS)


def problems(tmp_path, text):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_every_column_is_read(tmp_path):
    digest = hashlib.sha256(bytes(range(36, 48))).hexdigest()
    text = (
        "id,label,attack,campaign,canary,base,sha256\n"
        f"d,dog,gaussian,spring,,clean-d,{digest.upper()}\n"
        "\n"
        "a,0,backdoor,,,,\n"
        "e,,gaussian,,key-9,,\n"
        "b,1,,,key-3,,\n"
    )
    forget = read(tmp_path, text)
    assert forget.positions == (3, 0, 4, 1)
    assert forget.ids == ("d", "a", "e", "b")
    assert forget.attacks == ("gaussian", "backdoor", "gaussian", "")
    assert forget.campaigns == ("spring", "", "", "")
    assert forget.canaries == ("d", None, "key-9", "key-3")
    assert forget.bases == ("clean-d", None, None, None)
    assert forget.rows == (2, 4, 5, 6)
    assert forget.digest == hashlib.sha256(text.encode()).hexdigest()
    assert forget.most
    assert len(forget) == 4


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("id\nb\n", (1,)),
        ("path\n./dir/c.png\n", (2,)),
        ("index\n4\n0\n", (4, 0)),
        ("index,path,id\n2,dir/c.png,dir/c.png\n", (2,)),
        ("index,path\n2,./dir/c.png\n", (2,)),
        ("index;path\n2.0;.\\dir\\c.png\n", (2,)),
    ],
)
def test_one_column_names_the_samples(tmp_path, text, positions):
    forget = read(tmp_path, text)
    assert forget.positions == positions
    assert forget.ids == tuple(IDS[position] for position in positions)
    assert forget.canaries == (None,) * len(positions)


def test_columns_that_disagree_are_told_row_by_row(tmp_path):
    assert problems(tmp_path, "id,index,label\na,0,0\nb,0,1\ne,4,0\nd,2,1\n") == [
        f"forget.csv row {row}: {told}. "
        "Correct one, or leave out the column that is of another use."
        for row, told in (
            (3, "the id 'b' is sample 1 ('b') and the index '0' is sample 0 ('a')"),
            (5, "the id 'd' is sample 3 ('d') and the index '2' is sample 2 ('dir/c.png')"),
        )
    ]


def test_half_is_not_most(tmp_path):
    four = train().at([0, 1, 2, 3])
    for rows, most in (("a\nb\n", False), ("a\nb\nd\n", True)):
        (tmp_path / "forget.csv").write_text("id\n" + rows)
        assert (
            read_forget(tmp_path / "forget.csv", four, where_train="t", poisons=POISONS).most
            is most
        )


def test_every_problem_at_once(tmp_path):
    text = (
        "id,label,attack,canary,sha256\n"
        "a,frog,,,\n"
        "zz,,,,\n"
        ",,,,\n"
        "b,,gausian,,\n"
        "a,,,,\n"
        "d,3,targeted,k,\n"
        "e,,,k,00ff\n"
        "dir/c.png,brid,unlearnable,,\n"
        ",cat,,,\n"
    )
    assert problems(tmp_path, text) == [
        "forget.csv row 3: no sample of train.csv has the id 'zz'.",
        "forget.csv row 10: the id is empty.",
        "forget.csv row 5: unknown attack 'gausian'. Did you mean gaussian?",
        "forget.csv row 9: unknown attack 'unlearnable'. "
        "Known: backdoor, gaussian, indiscriminate, mislabelled, targeted, token-canary.",
        "forget.csv row 6: the same sample as in row 2. Remove one.",
        "forget.csv row 2: the label is 'frog', but train.csv says 0 ('cat').",
        "forget.csv row 7: the label is '3', but train.csv says 1 ('dog').",
        "forget.csv row 9: the label is 'brid', but train.csv says 2 ('frog').",
        "forget.csv row 8: the sample 'e' of train.csv does not have this sha256.",
        "forget.csv row 8: the same canary as in row 7. Remove one.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["forget.csv: the file is empty."]),
        ("id\n", ["forget.csv: there is a header but no row."]),
        (
            "label\ncat\n",
            ["forget.csv: no column names the samples. Name them by id, path, text or index."],
        ),
        (
            "id,atack\na,x\n",
            ["forget.csv: unknown column 'atack'. Did you mean attack?"],
        ),
        (
            "id\n\xe4\n".encode("latin-1"),
            ["forget.csv: not UTF-8 (byte 0xe4 in line 2). Save it as CSV UTF-8."],
        ),
        (
            "index\n5\n-1\n1.5\nx\n",
            [
                "forget.csv row 2: no sample of train.csv has the index '5'. "
                "Positions count from 0.",
                "forget.csv row 3: no sample of train.csv has the index '-1'.",
                "forget.csv row 4: no sample of train.csv has the index '1.5'.",
                "forget.csv row 5: no sample of train.csv has the index 'x'.",
            ],
        ),
        ("index\n1\n01\n", ["forget.csv row 3: the same sample as in row 2. Remove one."]),
        # The default key of row 2 is its own id, which row 3 claims too.
        (
            "id,attack,canary\na,gaussian,\nb,gaussian,a\n",
            ["forget.csv row 3: the same canary as in row 2. Remove one."],
        ),
    ],
)
def test_a_wrong_file(tmp_path, text, said):
    assert problems(tmp_path, text) == said


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read \\(No such file"):
        read_forget(tmp_path / "forget.csv", train(), where_train="train.csv", poisons=POISONS)


def test_many_like_problems_are_counted(tmp_path):
    found = problems(tmp_path, "id\n" + "".join(f"no-{i}\n" for i in range(300)))
    assert len(found) == 11
    assert found[-1] == "forget.csv: 290 more rows have such a problem."


def test_the_content_digest_is_of_the_stored_bytes():
    samples = train()
    picture = samples.x[2]
    assert content_digest(samples, 2) == hashlib.sha256(bytes(range(24, 36))).hexdigest()
    # The same picture as a view with other strides, and as little-endian floats.
    turned = picture.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    other = replace(samples, x=turned[None])
    assert content_digest(other, 0) == content_digest(samples, 2)
    floats = np.arange(24, 36).astype("<f4").tobytes()
    assert (
        content_digest(replace(samples, x=samples.x.float()), 2)
        == hashlib.sha256(floats).hexdigest()
    )


def test_split_keeps_the_order_of_each_side(tmp_path):
    parts = split(train(), read(tmp_path, "id\nd\na\n"))
    assert parts.retain.ids == ("b", "dir/c.png", "e")
    assert parts.forget.ids == ("d", "a")
    assert parts.forget.y.tolist() == [1, 0]
    assert parts.forget.x[0].flatten().tolist() == list(range(36, 48))
    assert parts.retain.x[2].flatten().tolist() == list(range(48, 60))


@given(st.sets(st.integers(0, 4), min_size=1))
def test_split_loses_and_repeats_nothing(tmp_path_factory, chosen):
    text = "index\n" + "".join(f"{i}\n" for i in chosen)
    parts = split(train(), read(tmp_path_factory.mktemp("f"), text))
    assert sorted(parts.retain.ids + parts.forget.ids) == sorted(IDS)
    assert set(parts.forget.ids) == {IDS[i] for i in chosen}


# --- overlap -------------------------------------------------------------------------------------


def samples(x, prefix):
    ids = tuple(f"{prefix}{i}" for i in range(len(x)))
    return Samples(ids=ids, x=x, y=torch.zeros(len(x), dtype=torch.int64))


def bytes_of(n, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8))


def said(a, b):
    return [str(p) for p in overlap(a, b, a_name="forget", b_name="test")]


def test_no_overlap():
    assert said(samples(bytes_of(300), "f"), samples(bytes_of(300, seed=1), "t")) == []


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_overlap_is_found_across_types(dtype):
    a, b = bytes_of(20), bytes_of(30, seed=1)
    b[[3, 7]] = a[[11, 2]]
    there = b if dtype == torch.uint8 else (b.double() / 255).to(dtype)
    expected = [
        "2 samples of forget are also in test: 'f2' = 't7', 'f11' = 't3'. "
        "Remove them from the test table."
    ]
    assert said(samples(a, "f"), samples(there, "t")) == expected


def test_overlap_of_unclipped_pictures_is_of_equal_floats():
    x = torch.from_numpy(np.random.default_rng(0).normal(0.5, 1, (4, 3, 4, 4)))
    near = x + 1e-3
    assert said(samples(x, "f"), samples(near, "t")) == []
    assert len(said(samples(x, "f"), samples(x.float(), "t"))) == 1
    zeros = torch.zeros(1, 1, 2, 2) + torch.tensor([[0.0, 3.3], [0.0, 2.2]])
    assert len(said(samples(zeros, "f"), samples(torch.where(zeros == 0, -0.0, zeros), "t"))) == 1


def test_equal_bytes_of_another_shape_are_no_overlap():
    x = bytes_of(2)
    assert said(samples(x, "f"), samples(x.reshape(2, 3, 2, 8), "t")) == []


def test_only_five_pairs_are_listed():
    (problem,) = said(samples(bytes_of(8), "f"), samples(bytes_of(8), "t"))
    assert problem.startswith("8 samples of forget are also in test: 'f0' = 't0', ")
    assert "'f4' = 't4' and 3 more." in problem


def test_noise_and_strings_have_keys_of_their_own(tmp_path):
    text = "id,attack,canary\na,gaussian,k\nb,token-canary,k\n"
    assert read(tmp_path, text).canaries == ("k", "k")
    both = "id,attack,canary\na,token-canary,k\nb,token-canary,k\n"
    assert problems(tmp_path, both) == [
        "forget.csv row 3: the same canary as in row 2. Remove one."
    ]
