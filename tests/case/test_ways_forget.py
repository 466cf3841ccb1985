"""Ways of keeping a forget set: each is read as its owner meant it, or refused in a few lines."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from poison_audit.case.forget import read_forget
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples
from poison_audit.poisons.readings import POISONS

N = 40
Y = [(7 * i) % 10 for i in range(N)]
POSITIONS = (3, 7, 10, 22, 31)
IDS = tuple(f"s{(17 * i) % N:02d}" for i in range(N))
PATHS = tuple(f"{'cat' if i < 20 else 'dog'}/{i:03d}.png" for i in range(N))
MASK = [i in POSITIONS for i in range(N)]


def train(tmp_path, kind):
    ids = {"named": IDS, "paths": PATHS, "rows": tuple(map(str, range(N))),
           "numbered": tuple(str(2 * i) for i in range(N))}[kind]  # fmt: skip
    paths = PATHS if kind in ("named", "paths") else None
    return Samples(
        ids=ids, x=torch.zeros(N, 1, 2, 2, dtype=torch.uint8), y=torch.tensor(Y),
        paths=paths, folder=tmp_path / "train" if paths else None,
    )  # fmt: skip


def numpy_file(array):
    def write(path):
        with path.open("wb") as file:
            np.save(file, array)

    return write


def archive(**arrays):
    return lambda path: np.savez(path, **arrays)


def text(content):
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda path: path.write_bytes(raw)


def torch_file(content):
    return lambda path: torch.save(content, path)


def pickled(content, protocol=None):
    return lambda path: path.write_bytes(pickle.dumps(content, protocol))


def parquet(**columns):
    return lambda path: pq.write_table(pa.table(columns), path)


def lines(values, header=""):
    return text(header + "".join(f"{value}\n" for value in values))


AT = np.array(POSITIONS)
LABELS = [Y[i] for i in POSITIONS]
NAMES = [IDS[i] for i in POSITIONS]
FILES = [PATHS[i] for i in POSITIONS]
CLEANLAB = "is_label_issue,label_quality,given_label,predicted_label"
ISSUES = "".join(f"{i},{MASK[i]},0.3,{Y[i]},{(Y[i] + 1) % 10}\n" for i in range(N))
WAYS = {
    # NumPy
    "positions.npy": numpy_file(AT),
    "int32.npy": numpy_file(AT.astype(np.int32)),
    "floats.npy": numpy_file(AT.astype(np.float64)),
    "column.npy": numpy_file(np.argwhere(MASK)),
    "mask.npy": numpy_file(np.array(MASK)),
    "mask-of-bytes.npy": numpy_file(np.array(MASK).astype(np.uint8)),
    "ids.npy": numpy_file(np.array(NAMES)),
    "paths.npy": numpy_file(np.array(FILES)),
    "alone.npz": archive(arr_0=AT),
    "among.npz": archive(retain=np.arange(N), forget_idx=AT),
    "mask.npz": archive(mask=np.array(MASK)),
    # JSON
    "positions.json": text(json.dumps(list(POSITIONS))),
    "ids.json": text(json.dumps(NAMES)),
    "paths.json": text(json.dumps(FILES)),
    "mask.json": text(json.dumps(MASK)),
    "forget.json": text(json.dumps({"forget": list(POSITIONS), "retain": [1, 2]})),
    "indices.json": text(json.dumps({"Forget Indices": list(POSITIONS), "seed": 3})),
    "deep.json": text(json.dumps({"forget": {"ids": NAMES}})),
    "records.json": text(json.dumps([{"id": n, "label": Y[IDS.index(n)]} for n in NAMES])),
    "columns.json": text(json.dumps({"index": list(POSITIONS), "label": LABELS})),
    "lines.jsonl": text("".join(json.dumps({"path": name}) + "\n" for name in FILES)),
    "lines.jsonl.gz": text(
        gzip.compress("".join(json.dumps({"id": n}) + "\n" for n in NAMES).encode())
    ),
    # Text
    "positions.txt": lines(POSITIONS),
    "no-newline.txt": text("\r\n".join(map(str, POSITIONS))),
    "ids.txt": lines(NAMES),
    "paths.txt": lines(FILES),
    "paths-from-here.txt": lines(f"train\\{name.replace('/', chr(92))}" for name in FILES),
    "one-line.txt": text(", ".join(map(str, POSITIONS))),
    "blanks.txt": text(" ".join(map(str, POSITIONS))),
    "list.txt": text(str(list(POSITIONS))),
    "savetxt.txt": lines(f"{i:.18e}" for i in POSITIONS),
    "mask.txt": lines(MASK),
    "mask-of-digits.txt": lines(map(int, MASK)),
    "no-suffix": lines(POSITIONS),
    # CSV
    "bare.csv": lines(POSITIONS),
    "bare-floats.csv": lines(f"{i:.1f}" for i in POSITIONS),
    "index.csv": lines(POSITIONS, "index\n"),
    "float-index.csv": lines((f"{i}.0" for i in POSITIONS), "index\n"),
    "idx.csv": lines(POSITIONS, "idx\n"),
    "bom.csv": lines(NAMES, "\ufeffid\n"),
    "utf16.csv": text(("id\n" + "".join(f"{name}\n" for name in NAMES)).encode("utf-16")),
    "semicolons.csv": lines((f"{IDS[i]};{Y[i]}" for i in POSITIONS), "id;label\n"),
    "tabs.csv": lines((f"{IDS[i]}\t{Y[i]}" for i in POSITIONS), "id\tlabel\n"),
    "tabs.tsv": lines((f"{PATHS[i]}\t{Y[i]}.0" for i in POSITIONS), "filename\tlabel\n"),
    "packed.csv.gz": text(gzip.compress(b"index\n3\n7\n10\n22\n31\n")),
    "pandas.csv": lines((f"{k},{i},{Y[i]}" for k, i in enumerate(POSITIONS)), ",index,label\n"),
    "pandas-twice.csv": lines(
        (f"{k},{k},{IDS[i]}" for k, i in enumerate(POSITIONS)), "Unnamed: 0.1,Unnamed: 0,id\n"
    ),
    # As many labels agree at these positions as chance would never give.
    "pandas-index.csv": lines((f"{i},{Y[i]}" for i in range(1, N, 4)), ",label\n"),
    "cleanlab.csv": lines(
        (f"{i},True,0.01,{Y[i]},{(Y[i] + 1) % 10}" for i in POSITIONS), f"index,{CLEANLAB}\n"
    ),
    "cleanlab-whole.csv": text(f",{CLEANLAB}\n{ISSUES}"),
    "cleanlab-no-index.csv": text(
        f"{CLEANLAB}\n" + "".join(f"{row.partition(',')[2]}\n" for row in ISSUES.splitlines())
    ),
    "datalab.csv": lines(
        (f"{i},{MASK[i]},{Y[i] / 10},{Y[i]},{Y[i]}" for i in range(N)),
        ",is_label_issue,label_score,given_label,predicted_label\n",
    ),
    "marked.csv": lines((f"{IDS[i]},{int(MASK[i])}" for i in range(N)), "id,is_poison\n"),
    "table.parquet": parquet(index=AT, label=[Y[i] for i in POSITIONS]),
    "pandas.parquet": parquet(id=NAMES, __index_level_0__=list(range(5))),
}  # fmt: skip
PICKLES = {
    "tensor.pt": torch_file(torch.tensor(POSITIONS)),
    "mask.pt": torch_file(torch.tensor(MASK)),
    "list.pth": torch_file(list(POSITIONS)),
    "forget.pt": torch_file({"forget": torch.tensor(POSITIONS), "retain": torch.arange(3)}),
    "ids.pt": torch_file(NAMES),
    "tensors.pt": torch_file([torch.tensor(i) for i in POSITIONS]),
    "list.pkl": pickled(list(POSITIONS)),
    "set.pkl": pickled(set(POSITIONS)),
    "array.pkl": pickled(AT),
    "array-5.pkl": pickled({"forget_idx": AT}, 5),
    "scalars-0.pickle": pickled(list(AT), 0),
    "tuple-2.pickle": pickled(tuple(AT), 2),
}
WAYS |= PICKLES


def read(tmp_path, way, kind="named", write=None):
    path = tmp_path / way
    (write or WAYS[way])(path)
    return read_forget(
        path, train(tmp_path, kind), where_train="train.csv", poisons=POISONS,
        allow_pickle=way in PICKLES,
    )  # fmt: skip


def said(tmp_path, name, write, kind="named", pickles=True):
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError) as caught:
        read_forget(
            path, train(tmp_path, kind), where_train="train.csv", poisons=POISONS,
            allow_pickle=pickles,
        )  # fmt: skip
    found = [str(problem).removeprefix(f"{path}") for problem in caught.value.problems]
    assert len(found) <= 3
    return "\n".join(found)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_of_keeping_a_forget_set(tmp_path, way):
    forget = read(tmp_path, way)
    wanted = tuple(range(1, N, 4)) if way == "pandas-index.csv" else POSITIONS
    assert tuple(sorted(forget.positions)) == wanted
    assert len(set(forget.rows)) == len(wanted)


@pytest.mark.parametrize("way", ["positions.npy", "positions.json", "positions.txt", "index.csv"])
@pytest.mark.parametrize("kind", ["rows", "paths"])
def test_positions_are_positions_in_every_table(tmp_path, way, kind):
    assert read(tmp_path, way, kind).positions == POSITIONS


def test_positions_in_no_order_stay_in_theirs(tmp_path):
    write = text("[31, 3, 22]")
    assert read(tmp_path, "list.json", write=write).positions == (31, 3, 22)


NOT_WHOLE = np.array([1.0, 2.5])
REFUSED = [
    # Of another table.
    ("mask.npy", numpy_file(np.array(MASK[:-1])),
     "is a mask of 39 samples, and train.csv has 40. Give one boolean for each"),
    ("mask.txt", lines(map(int, MASK[:-1])), "is a mask of 39 samples, and train.csv has 40"),
    ("beyond.npy", numpy_file(AT * 2), "2 of 5 entries are no position in train.csv, which has "
     "0 to 39 (the first: '44'). Were they saved for another table?"),
    ("from-1.npy", numpy_file([*AT[:-1].tolist(), N]), "may count from 1"),
    ("negative.npy", numpy_file(-AT), "5 of 5 entries are no position"),
    ("fractions.npy", numpy_file(NOT_WHOLE), "no sample of train.csv has the path '1.0'"),
    # Of two readings.
    ("kept.npy", numpy_file(~np.array(MASK)),
     "is a mask of 35 of 40 samples: does it mark what is to be kept?"),
    ("zero.csv", lines((0, *POSITIONS)), "its first line is 0: a position, or the header that "
     "pandas writes over a list. Put the line index above it"),
    ("unnamed.csv", lines((f"{k},{Y[i]}" for k, i in enumerate(POSITIONS)), ",label\n"),
     "the column without a name may hold positions in train.csv, or count the rows of this file"),
    ("unnamed.csv", lines((f"{i},x" for i in POSITIONS), ",campaign\n"), "Call it index if"),
    ("cleanlab.csv", lines(
        (f"{k},True,0.1,{Y[i]},0" for k, i in enumerate(POSITIONS)), f",{CLEANLAB}\n"),
     "Call it index if it holds positions from 0; else name the samples by id or path"),
    ("datalab.csv", lines(("1,True,False", "2,True,True"), "id,is_label_issue,is_outlier_issue\n"),
     "the columns is_label_issue, is_outlier_issue each mark rows: which of them is meant?"),
    ("several.json", text('{"forget": [1], "poison": [2]}'), "which of them is to be forgotten?"),
    ("retain.json", text('{"retain": [1]}'), "holds 'retain': which of them is to be forgotten?"),
    ("several.npz", archive(a=AT, b=AT), "holds 'a', 'b': which of them is to be forgotten?"),
    # Of nothing.
    ("none.npy", numpy_file(np.array(MASK) & False), "is a mask that marks no sample"),
    ("none.json", text("[]"), "there is no sample in it"),
    ("none.txt", text("\n\n"), "the file is empty"),
    ("marked.csv", lines((f"{name},0" for name in IDS), "id,is_poison\n"), "no row is marked by"),
    ("marked.csv", lines((f"{name},?" for name in IDS), "id,is_poison\n"), "expected True"),
    # Of another kind.
    ("split.json", text('{"index":{"0":3,"1":7}}'), "maps '0', '1' to single values: do the"),
    ("nested.json", text("[[1, 2], [3, 4]]"), "got a list among them"),
    ("mixed.json", text('[1, {"id": "a"}]'), "got a dict among them"),
    ("two.npy", numpy_file(np.ones((3, 2), int)), "got a list among them"),
    ("three.txt", lines(("1 2 3", "4 5 6")), "unknown column '1 2 3'"),
    ("columns.csv", lines(("1,9", "2,8")), "unknown column"),
    ("objects.npy", numpy_file(np.array([{}, None])), "not a readable .npy ("),
    ("folder", lambda path: path.mkdir(), "is a folder. Give a file that lists the samples."),
    ("missing.npy", lambda path: None, "cannot be read (No such file"),
    ("complex.pkl", pickled(np.array([1j])), "an array of 'c16', which is no number"),
    ("code.pkl", pickled(print), "it names builtins.print"),
    ("model.pt", torch_file(torch.nn.Linear(1, 1)), "is damaged, or holds more than tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "expected"), REFUSED)
def test_what_cannot_be_meant_is_refused_in_words(tmp_path, name, write, expected):
    assert expected in said(tmp_path, name, write)


@pytest.mark.parametrize("way", PICKLES)
def test_pickles_want_the_flag(tmp_path, way):
    found = said(tmp_path, way, WAYS[way], pickles=False)
    assert "is a pickle, which can run code when it is read. --allow-pickle reads arrays" in found
    assert found.endswith("Or: Save a list of positions as .npy, .json or .txt.")


def test_numbers_that_may_be_ids_are_asked_about(tmp_path):
    even = [2, 4, 8]
    found = said(tmp_path, "list.json", text(json.dumps(even)), kind="numbered")
    assert found == (
        ": holds numbers, which may be ids of train.csv or positions in it "
        "(2 is the id of the sample at 1). "
        "Write them as a CSV with the header index (positions from 0) or id."
    )
    # The ids of some samples, and of none: they may be positions, or a part may be gone.
    assert "may be ids" in said(tmp_path, "list.json", text("[1, 2, 3]"), kind="numbered")
    for name, content, positions in (
        ("a.csv", "index\n2\n4\n", (2, 4)),
        ("b.csv", "id\n2\n4.0\n", (1, 2)),
        ("c.json", '{"ids": [2, 4]}', (1, 2)),
        ("d.json", '{"forget_indices": [2, 4]}', (2, 4)),
        # No position of 40 is 78.
        ("e.json", "[2, 78]", (1, 39)),
    ):
        forget = read(tmp_path, name, "numbered", text(content))
        assert forget.positions == positions


def test_the_fix_of_a_refusal_leads_to_the_right_rows(tmp_path):
    for content, positions in (("index\n0\n3\n", (0, 3)), ("index\n3\n7\n", (3, 7))):
        assert read(tmp_path, "zero.csv", write=text(content)).positions == positions


def test_a_pickle_runs_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    found = said(tmp_path, "bomb.pkl", pickled([Bomb()]))
    assert "it names" in found
    assert not (tmp_path / "made").exists()
    # A tuple of a tuple twice, 200 times over: to hash it as a key takes until the sun is cold.
    raw = b"\x80\x02})" + 200 * b"2\x86" + b"K\x01s."
    assert "a key is no text" in said(tmp_path, "hash.pkl", text(raw))
    several = [1]
    for _ in range(60):
        several = [several, several]
    assert "got a list among them" in said(tmp_path, "laughs.pkl", pickled(several))
