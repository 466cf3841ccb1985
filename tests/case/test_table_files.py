"""Tables of pictures as .npz and Parquet files."""

import random
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders.tables import COLOUR, GRAY, assert_colour, png, problems, save
from poison_audit.case.tables import read_table
from poison_audit.errors import InputError

# --- npz -----------------------------------------------------------------------------------------


def save_npz(tmp_path, **arrays):
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    return path


Y = np.array([0, 1, 2, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
def test_npz_keeps_8_bit_values_and_float_values(tmp_path, dtype):
    x = COLOUR if dtype == np.uint8 else (COLOUR / 255).astype(dtype)
    samples = read_table(save_npz(tmp_path, x=x, y=Y))
    assert samples.ids == ("0", "1", "2", "3")
    assert samples.y.tolist() == Y.tolist()
    assert str(samples.x.dtype).removeprefix("torch.") == {
        "uint8": "uint8",
        "float64": "float64",
    }.get(np.dtype(dtype).name, "float32")
    for c in range(3):
        np.testing.assert_array_equal(samples.x[:, c].numpy(), x[..., c].astype("f8"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5, 6), (4, 1, 5, 6)),
        ((4, 5, 6, 3), (4, 3, 5, 6)),
        ((4, 5, 6, 1), (4, 1, 5, 6)),
        ((4, 3, 5, 6), (4, 3, 5, 6)),
        ((4, 1, 5, 6), (4, 1, 5, 6)),
        ((4, 1, 1, 1), (4, 1, 1, 1)),
    ],
)
def test_npz_layouts(tmp_path, shape, expected):
    x = np.zeros(shape, dtype=np.uint8)
    assert tuple(read_table(save_npz(tmp_path, x=x, y=Y)).x.shape) == expected


def test_npz_ids_names_and_gray_for_colour(tmp_path):
    y, ids = np.array(["b", "a", "a", "b"]), np.array([10, 20, 30, 40])
    path = save_npz(tmp_path, x=GRAY, y=y, id=ids)
    samples = read_table(path, size=(3, 5, 6))
    assert samples.ids == ("10", "20", "30", "40")
    assert samples.y.tolist() == [1, 0, 0, 1]
    assert samples.names == ("a", "b")
    for c in range(3):
        assert samples.x[:, c].tolist() == GRAY.tolist()


def test_npz_canaries_may_leave_the_unit_range(tmp_path):
    x = (COLOUR / 255 + np.random.default_rng(1).normal(0, 1, COLOUR.shape)).astype(np.float32)
    assert x.min() < 0
    assert x.max() > 1
    samples = read_table(save_npz(tmp_path, x=x, y=Y))
    np.testing.assert_array_equal(samples.x.numpy(), x.transpose(0, 3, 1, 2))


HOLES = (COLOUR / 255).astype(np.float32)
HOLES[1, 0, 0, 0], HOLES[3, 4, 5, 2] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": COLOUR}, ["the array 'y' is missing"]),
        ({"Z": COLOUR, "y": Y}, ["the array 'x' is missing. Known: Z, y."]),
        ({"X": COLOUR, "data": COLOUR, "y": Y}, ["the arrays X and data may both be x"]),
        ({"x_test": COLOUR, "y_test": Y}, ["holds x_test, y_test: nothing for train"]),
        ({"x": COLOUR[:, :3, :, :], "y": Y}, ["the channels may be its second axis or its last"]),
        ({"x": COLOUR.astype(np.float32), "y": Y}, ["x holds 25", "Divide x by 255"]),
        ({"x": -40 * COLOUR.astype(np.float32), "y": Y}, ["x holds -10"]),
        ({"x": HOLES, "y": Y}, ["index 1: x is not finite", "index 3: x is not finite"]),
        ({"x": COLOUR.astype(int), "y": Y}, ["x is int64, expected uint8"]),
        ({"x": COLOUR > 5, "y": Y}, ["x is bool, expected uint8"]),
        ({"x": COLOUR[:, :, :, :2], "y": Y}, ["x has the shape (4, 5, 6, 2)"]),
        ({"x": np.uint8(3), "y": Y}, ["x has the shape ()"]),
        ({"x": COLOUR[:0], "y": Y[:0]}, ["x has the shape (0, 5, 6, 3): there is no sample"]),
        ({"x": COLOUR, "y": Y[:3]}, ["y has the shape (3,), expected (4,)"]),
        ({"x": COLOUR, "y": np.eye(3)[Y] * 2}, ["y has the shape (4, 3), expected (4,)"]),
        ({"x": COLOUR, "y": Y / 2}, ["y is float64, expected integers or text"]),
        ({"x": COLOUR, "y": Y > 0}, ["y is bool, expected integers or text"]),
        ({"x": COLOUR, "y": Y, "id": Y}, ["index 3: the id '1' appears 2 times"]),
        ({"x": COLOUR, "y": Y, "id": Y[:2]}, ["id has the shape (2,), expected (4,)"]),
        ({"x": COLOUR, "y": Y - 1}, ["index 0: the label '-1' is not an integer from 0"]),
        ({"x": COLOUR, "y": np.array([None] * 4)}, ["not a readable .npz (Object arrays"]),
    ],
)
def test_a_wrong_npz(tmp_path, arrays, said):
    found = "\n".join(problems(save_npz(tmp_path, **arrays)))
    for part in said:
        assert part in found


def test_an_npz_with_letters_beyond_unicode(tmp_path):
    beyond = np.frombuffer(np.full(4, 0x110000, np.uint32).tobytes(), dtype="<U1")
    (problem,) = problems(save_npz(tmp_path, x=COLOUR, y=beyond))
    assert "holds no text (" in problem


def test_an_npz_with_several_problems(tmp_path):
    x = COLOUR[:, :, :, :2].astype(int)
    assert len(problems(save_npz(tmp_path, x=x, y=Y[:2] / 2))) == 4


def test_npz_of_another_size(tmp_path):
    path = save_npz(tmp_path, x=COLOUR, y=Y)
    assert problems(path, size=(1, 5, 6)) == [f"{path}: the pictures are 3x5x6, expected 1x5x6."]
    assert problems(path, size=(3, 6, 5)) == [f"{path}: the pictures are 3x5x6, expected 3x6x5."]


def test_damaged_npz_files_are_errors_never_tracebacks(tmp_path):
    path = save_npz(tmp_path, x=COLOUR, y=Y)
    whole = path.read_bytes()
    flips = random.Random(0)
    damaged = [b"", b"PK\x03\x04", b"x,y\n", *(whole[:n] for n in range(0, len(whole), 97))]
    for _ in range(150):
        copy = bytearray(whole)
        copy[flips.randrange(len(copy))] ^= 1 << flips.randrange(8)
        damaged.append(bytes(copy))
    refused = []
    for content in damaged:
        path.write_bytes(content)
        try:
            read_table(path)
        except InputError as error:
            refused.append(str(error))
    assert all(str(path) in message for message in refused)
    # A flipped bit in a pixel fails the zip's checksum; only padding and dates go unseen.
    assert len(refused) > 0.8 * len(damaged)


def test_an_npz_that_is_a_bare_array_or_holds_other_files(tmp_path):
    path = tmp_path / "t.npz"
    with path.open("wb") as file:
        np.save(file, COLOUR)
    assert problems(path) == [f"{path}: one array, not an .npz of x and y."]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "text")
        archive.writestr("y", "text")
    assert "x is |S4, expected uint8" in problems(path)[0]


def test_small_files_of_pictures_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("poison_audit.case.pictures.memory", lambda: 3 << 20)
    for i in range(5):
        Image.new("L", (1024, 1024)).save(tmp_path / f"{i}.png")
    path = tmp_path / "t.csv"
    lines = "".join(f"{i}.png,{i % 2}\n" for i in range(5))
    path.write_text(f"path,label\n{lines}", encoding="ascii")
    (problem,) = problems(path)
    assert "5 pictures of 1x1024x1024 take more than this machine's memory" in problem
    path.write_text("path,label\n0.png,0\n1.png,1\n", encoding="ascii")
    assert read_table(path).x.shape == (2, 1, 1024, 1024)


# --- parquet -------------------------------------------------------------------------------------


def save_parquet(tmp_path, **columns):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_with_paths(tmp_path):
    for i, array in enumerate(COLOUR):
        save(tmp_path / f"{i}.png", array)
    path = save_parquet(tmp_path, path=["1.png", "0.png"], label=[3, 4])
    samples = read_table(path)
    assert samples.ids == ("1.png", "0.png")
    assert samples.y.tolist() == [3, 4]
    assert_colour(samples, (1, 0))


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["a", "b", "c", "d"], ("a", "b", "c", "d")),
        ([None, "b", "c", "d"], ("0", "1", "2", "3")),
        (["a", "b", "b", "d"], ("0", "1", "2", "3")),
    ],
)
def test_parquet_with_hugging_face_pictures(tmp_path, paths, ids):
    cells = [{"bytes": png(a), "path": p} for a, p in zip(COLOUR, paths, strict=True)]
    samples = read_table(save_parquet(tmp_path, image=cells, label=["u", "v", "v", "u"]))
    assert samples.ids == ids
    assert samples.y.tolist() == [0, 1, 1, 0]
    assert_colour(samples)


def test_parquet_with_ids(tmp_path):
    cells = [{"bytes": png(a), "path": None} for a in COLOUR]
    path = save_parquet(tmp_path, image=cells, label=Y, id=[5, 6, 7, 8])
    assert read_table(path).ids == ("5", "6", "7", "8")


def test_wrong_parquet_tables(tmp_path):
    cells = [{"bytes": png(COLOUR[0]), "path": "a"}, None, {"bytes": None, "path": "../b"}]
    found = "\n".join(problems(save_parquet(tmp_path, image=cells, label=[1, None, 2])))
    assert "index 1: the path is empty" in found
    assert "index 2: the path '../b' leaves the table's folder" in found
    assert "index 1: the label '' is not an integer from 0" in found
    (problem,) = problems(save_parquet(tmp_path, path=["a"], lable=[1]))
    assert problem.endswith("the column 'label' is missing. Did you mean lable?")
    (problem,) = problems(save_parquet(tmp_path, path=[1], label=[1]))
    assert problem.endswith("index 0: expected a path, or a picture's bytes and path, got int.")
    (problem,) = problems(save_parquet(tmp_path, path=pa.array([], "string"), label=[]))
    assert problem.endswith("the table has no row.")


def test_a_small_parquet_file_of_many_rows_or_much_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("poison_audit.case.parquet.MOST_ROWS", 50_000)
    n = 200_000
    (problem,) = problems(save_parquet(tmp_path, path=pa.nulls(n, "string"), label=[0] * n))
    assert "holds 200,000 rows in " in problem
    word = pa.array(["x" * 100_000])
    monkeypatch.setattr("poison_audit.case.parquet.MOST_BYTES", 1 << 24)
    named = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), word)
    (problem,) = problems(save_parquet(tmp_path, path=named.cast("string"), label=[0] * 1000))
    assert "holds more than 0 GiB in " in problem
    # The same as categories is one word, which is a path that leads to nothing.
    found = problems(save_parquet(tmp_path, path=named, label=[0] * 1000))
    assert "too long" in found[0] or "is missing" in found[0] or "index 0" in found[0]


@pytest.mark.parametrize("kind", [
    pa.string_view(), pa.binary_view(), pa.list_view(pa.int8()),
    pa.struct([("a", pa.string_view())]),
    pa.struct([("path", pa.dictionary(pa.int8(), pa.string()))]),
])  # fmt: skip
def test_columns_in_which_a_few_bytes_stand_for_many_are_refused(tmp_path, kind):
    path = tmp_path / "data-00000-of-00001.arrow"
    (tmp_path / "state.json").write_text(
        '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}', encoding="utf-8"
    )
    table = pa.table({"path": pa.nulls(2, kind), "label": [0, 1]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (problem,) = problems(tmp_path)
    assert "the column 'path' is of a type that is not read" in problem


@pytest.mark.parametrize("column", [
    [[{"a": [1, 2]}]] * 2, [{"bytes": {"x": b"1"}, "path": [1]}] * 2, [[[[[]]]]] * 2,
])  # fmt: skip
def test_nested_cells_are_no_pictures_and_no_labels(tmp_path, column):
    assert problems(save_parquet(tmp_path, image=column, label=[0, 1]))
    assert problems(save_parquet(tmp_path, path=["a", "b"], label=column))


def test_damaged_parquet_and_missing_pyarrow(tmp_path, monkeypatch):
    path = save_parquet(tmp_path, path=["a"], label=[1])
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2], b"PAR1" + whole[-200:]):
        path.write_bytes(content)
        (problem,) = problems(path)
        assert f"{path}: not a readable Parquet file" in problem
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (problem,) = problems(path)
    assert problem.endswith("Run: pip install 'poison-audit[parquet]'.")
