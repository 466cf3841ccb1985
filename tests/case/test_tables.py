import io
import os
import random
import struct
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poison_audit.case.labels import read_labels
from poison_audit.case.tables import check_labels, read_table
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)  # (n, h, w, c)
GRAY = RNG.integers(0, 256, (4, 5, 6), dtype=np.uint8)


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def write_csv(folder, text, pictures=COLOUR):
    for i, array in enumerate(pictures):
        save(folder / f"{i}.png", array)
    path = folder / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path, **options):
    with pytest.raises(InputError) as caught:
        read_table(path, **options)
    return [str(problem) for problem in caught.value.problems]


def assert_colour(samples, order=(0, 1, 2, 3)):
    assert samples.x.dtype == torch.uint8
    # Pixel by pixel: the channel comes first in Samples, last in a picture.
    for place, i in enumerate(order):
        for c in range(3):
            assert samples.x[place, c].tolist() == COLOUR[i, :, :, c].tolist()


# --- csv -----------------------------------------------------------------------------------------


def test_links_and_pipes_are_not_followed_out_of_the_folder(tmp_path):
    outside = save(tmp_path / "outside.png", GRAY[0])
    here = tmp_path / "here"
    save(here / "inner" / "a.png", GRAY[0])
    (here / "b.png").symlink_to(here / "inner" / "a.png")  # stays inside
    (here / "c.png").symlink_to(outside)
    (here / "d.png").symlink_to("d.png")
    (here / "e").symlink_to(tmp_path)
    os.mkfifo(here / "f.png")
    rows = ["inner/a.png", "b.png", "c.png", "d.png", "e/outside.png", "f.png", "inner"]
    table = here / "t.csv"
    table.write_text("path,label\n" + "".join(f"{name},0\n" for name in rows), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_table(table)
    told = str(caught.value)
    assert "row 4: the path 'c.png' is a link that leaves the table's folder" in told
    assert "row 5: the path 'd.png'" in told
    assert "row 6: the path 'e/outside.png' is a link that leaves the table's folder" in told
    assert "row 7: the path 'f.png' is no file" in told
    assert "row 8: the path 'inner' is no file" in told
    assert "row 2" not in told
    assert "row 3" not in told


def test_a_bomb_is_not_inflated(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (9, 8, 8)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(1100):
                member.write(bytes(1 << 20))
        archive.writestr("y.npy", b"")
    (tmp_path / "t.npz").write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 3 << 20
    with pytest.raises(InputError, match="would be 1 GiB once inflated"):
        read_table(tmp_path / "t.npz")


def test_csv_with_integers(tmp_path):
    path = write_csv(tmp_path, "path,label,id\n2.png,7,c\n0.png,1,a\n")
    samples = read_table(path)
    assert samples.ids == ("c", "a")
    assert samples.y.tolist() == [7, 1]
    assert samples.y.dtype == torch.int64
    assert samples.names is None
    assert_colour(samples, (2, 0))


def test_csv_without_ids_with_names_and_other_columns(tmp_path):
    text = "\ufefflabel,source,path\n dog ,x,0.png\n\ncat,y,1.png\ndog,z,2.png\n"
    samples = read_table(write_csv(tmp_path, text))
    assert samples.ids == ("0.png", "1.png", "2.png")
    assert samples.y.tolist() == [1, 0, 1]
    assert samples.names == ("cat", "dog")


def test_given_names_decide_the_order(tmp_path):
    path = write_csv(tmp_path, "path,label\n0.png,cat\n1.png,dog\n")
    samples = read_table(path, names=["dog", "frog", "cat"])
    assert samples.y.tolist() == [2, 0]
    assert samples.names == ("dog", "frog", "cat")
    (problem,) = problems(path, names=["dog", "cats"])
    assert problem == f"{path} row 2: unknown label 'cat'. Did you mean cats?"


def test_rows_are_counted_as_a_spreadsheet_counts(tmp_path):
    # Row 2 holds a line break inside quotes, row 3 is blank: the wrong label stands in row 4.
    path = write_csv(tmp_path, 'path,label,note\n0.png,1,"a\nb"\n\n1.png,-1,c\n')
    assert problems(path) == [f"{path} row 4: the label '-1' is not an integer from 0."]


def test_every_problem_of_a_table_at_once(tmp_path):
    text = (
        "path,label,id\n0.png,1,a\n9.png,2,b\n../0.png,3,c\n/etc/passwd,3,d\n1.png,4.5,e\n"
        "2.png,,f\nbad.png,-2,a\n,1,\n..\\0.png,1,g\nC:\\0.png,1,h\ntiny.png,1,i\n3.png,cat,j\n"
    )
    path = write_csv(tmp_path, text)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    save(tmp_path / "tiny.png", COLOUR[0, :2, :2])
    found = "\n".join(problems(path))
    for said in (
        "row 3: the picture cannot be read (No such file or directory)",
        "row 4: the path '../0.png' leaves the table's folder",
        "row 5: the path '/etc/passwd' leaves the table's folder",
        "row 6: the label '4.5' is not an integer from 0",
        "row 7: the label '' is not an integer from 0",
        f"row 8: the id 'a' appears 2 times (first in {path} row 2)",
        "row 8: the label '-2' is not an integer from 0",
        "row 8: the picture cannot be read (not a picture that Pillow knows)",
        "row 9: the path is empty",
        "row 9: the id is empty",
        "row 10: the path '..\\\\0.png' leaves the table's folder",
        "row 11: the path 'C:\\\\0.png' leaves the table's folder",
        "row 12: the picture is 3x2x2, most pictures are 3x5x6. Resize it as training did.",
        "row 13: the label 'cat' is not an integer from 0",
    ):
        assert said in found
    assert len(found.splitlines()) == 14


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["the file is empty"]),
        ("\n\n", ["the file is empty"]),
        ("path,label\n", ["there is a header but no row"]),
        ("path,lable\n0.png,1\n", ["the column 'label' is missing. Did you mean lable?"]),
        ("path,path,label\n0.png,0.png,1\n", ["the column 'path' appears twice"]),
        ("path,label\n0.png\n0.png,1,2\n", ["row 2: 1 cells under 2", "row 3: 3 cells under 2"]),
        ('path,label\n"0.png,1\n', ["row 2: not CSV (unexpected end of data)"]),
    ],
)
def test_a_damaged_csv(tmp_path, text, said):
    found = problems(write_csv(tmp_path, text))
    assert len(found) == len(said)
    for problem, part in zip(found, said, strict=True):
        assert part in problem
        assert str(tmp_path) in problem


def test_a_csv_that_is_not_utf_8(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("path,label\na.png,1\nä.png,2\n".encode("latin-1"))
    assert problems(path) == [f"{path}: not UTF-8 (byte 0xe4 in line 3). Save it as CSV UTF-8."]


def test_like_problems_are_listed_ten_times_and_counted(tmp_path):
    rows = "".join(f"no-{i}.png,1\n" for i in range(25))
    found = problems(write_csv(tmp_path, "path,label\n" + rows))
    assert len(found) == 11
    assert found[-1] == f"{tmp_path / 't.csv'}: 15 more rows have such a problem."


# --- pictures ------------------------------------------------------------------------------------


def test_gray_becomes_colour_but_colour_never_gray(tmp_path):
    path = write_csv(tmp_path, "path,label\n0.png,0\ng.png,1\n")
    save(tmp_path / "g.png", GRAY[0])
    for samples in (read_table(path), read_table(path, size=(3, 5, 6))):
        assert all(channel.tolist() == GRAY[0].tolist() for channel in samples.x[1])
    (problem,) = problems(path, size=(1, 5, 6))
    assert "row 2: the picture is 3x5x6, expected 1x5x6. It has colour" in problem


def test_gray_stays_gray(tmp_path):
    samples = read_table(write_csv(tmp_path, "path,label\n0.png,0\n1.png,0\n", GRAY))
    assert samples.x[:, 0].tolist() == GRAY[:2].tolist()


def test_size_is_required_where_it_is_given(tmp_path):
    path = write_csv(tmp_path, "path,label\n0.png,0\n")
    (problem,) = problems(path, size=(3, 32, 32))
    assert "row 2: the picture is 3x5x6, expected 3x32x32" in problem
    (problem,) = problems(path, size=(4, 5, 6))
    assert "row 2: the picture is 3x5x6, expected 4x5x6" in problem


def test_palettes_and_transparency_decode_to_their_colours(tmp_path):
    # Two colours, so that the palette is lossless.
    flat = np.where(GRAY[0, :, :, None] > 127, [200, 10, 30], [0, 90, 255]).astype(np.uint8)
    save(tmp_path / "p.png", flat, "P")
    Image.fromarray(flat).quantize(2).save(tmp_path / "pt.png", transparency=b"\x00\x80")
    alpha = np.concatenate([flat, GRAY[0, :, :, None]], axis=2)
    save(tmp_path / "a.png", alpha)
    text = "path,label\na.png,0\npt.png,0\n"
    samples = read_table(write_csv(tmp_path, text, []))
    for x in samples.x:
        assert x.permute(1, 2, 0).tolist() == flat.tolist()


def test_deep_and_truncated_and_huge_pictures_are_refused(tmp_path, monkeypatch):
    save(tmp_path / "deep.png", GRAY[0].astype(np.uint16) * 200)
    noise = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes(png(noise)[:2000])
    save(tmp_path / "fine.png", noise)
    save(tmp_path / "huge.png", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    text = "path,label\nfine.png,0\ndeep.png,0\ncut.png,0\nhuge.png,0\n"
    found = problems(write_csv(tmp_path, text, []))
    assert len(found) == 3
    assert "row 3: the picture cannot be read (its mode is I;16" in found[0]
    assert "row 5: the picture cannot be read (Image size (4096 pixels)" in found[1]
    assert "row 4: the picture cannot be read (" in found[2]


def test_a_small_file_that_claims_a_large_picture_is_not_decoded(tmp_path):
    packed = io.BytesIO()
    Image.new("1", (5000, 5000)).save(packed, "PNG")
    (tmp_path / "0.png").write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 1 << 14
    (problem,) = problems(write_csv(tmp_path, "path,label\n0.png,0\n", []))
    assert "row 2: the picture cannot be read (it is 5000x5000, above 16,777,216 pixels)" in problem


def test_a_tiff_whose_offsets_are_fractions(tmp_path):
    packed = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(packed, "TIFF")
    content = bytearray(packed.getvalue())
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry) == (273,):  # where the strips begin
            struct.pack_into("<H", content, entry + 2, 11)  # as float32
    (tmp_path / "0.tiff").write_bytes(content)
    (problem,) = problems(write_csv(tmp_path, "path,label\n0.tiff,0\n", []))
    assert "row 2: the picture cannot be read (" in problem


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
        # Either could be the channels: first wins.
        ((4, 3, 7, 3), (4, 3, 7, 3)),
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
    x = (COLOUR / 255 + RNG.normal(0, 1, COLOUR.shape)).astype(np.float32)
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
        ({"X": COLOUR, "y": Y}, ["the array 'x' is missing. Known: X, y."]),
        ({"x": COLOUR.astype(np.float32), "y": Y}, ["x holds 25", "Divide x by 255"]),
        ({"x": -40 * COLOUR.astype(np.float32), "y": Y}, ["x holds -10"]),
        ({"x": HOLES, "y": Y}, ["index 1: x is not finite", "index 3: x is not finite"]),
        ({"x": COLOUR.astype(int), "y": Y}, ["x is int64, expected uint8"]),
        ({"x": COLOUR > 5, "y": Y}, ["x is bool, expected uint8"]),
        ({"x": COLOUR[:, :, :, :2], "y": Y}, ["x has the shape (4, 5, 6, 2)"]),
        ({"x": np.uint8(3), "y": Y}, ["x has the shape ()"]),
        ({"x": COLOUR[:0], "y": Y[:0]}, ["x has the shape (0, 5, 6, 3): there is no sample"]),
        ({"x": COLOUR, "y": Y[:3]}, ["y has the shape (3,), expected (4,)"]),
        ({"x": COLOUR, "y": Y[:, None]}, ["y has the shape (4, 1), expected (4,)"]),
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
    (problem,) = problems(save_parquet(tmp_path, path=["a"], labels=[1]))
    assert problem.endswith("the column 'label' is missing. Did you mean labels?")
    (problem,) = problems(save_parquet(tmp_path, path=[1], label=[1]))
    assert problem.endswith("index 0: expected a path, or a picture's bytes and path, got int.")
    (problem,) = problems(save_parquet(tmp_path, path=pa.array([], "string"), label=[]))
    assert problem.endswith("the table has no row.")


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


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_is_numbered_as_torchvision_does(tmp_path):
    from torchvision.datasets import ImageFolder

    for i, name in enumerate(["dog/b.png", "cat/deep/a.png", "dog/a.png", "ant/z.png"]):
        save(tmp_path / name, COLOUR[i])
    (tmp_path / ".cache").mkdir()
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"x")
    samples = read_table(tmp_path)
    assert samples.ids == ("ant/z.png", "cat/deep/a.png", "dog/a.png", "dog/b.png")
    assert samples.names == ("ant", "cat", "dog")
    # torchvision counts the hidden folder as class 0; here it is none.
    oracle = ImageFolder(str(tmp_path), allow_empty=True)
    assert samples.y.tolist() == [0, 1, 2, 2]
    assert dict(zip(samples.ids, samples.y.tolist(), strict=True)) == {
        path.removeprefix(f"{tmp_path}/"): label - oracle.class_to_idx["ant"]
        for path, label in oracle.samples
    }
    assert_colour(samples, (3, 1, 2, 0))


def test_an_empty_label_folder_keeps_its_number(tmp_path):
    save(tmp_path / "c" / "1.png", COLOUR[0])
    (tmp_path / "a").mkdir()
    assert read_table(tmp_path).y.tolist() == [1]


def test_given_names_number_the_folders(tmp_path):
    save(tmp_path / "dog" / "1.png", COLOUR[0])
    assert read_table(tmp_path, names=["frog", "dog"]).y.tolist() == [1]


def test_folders_named_by_numbers_must_read_one_way(tmp_path):
    for name in ("0", "1"):
        save(tmp_path / name / "1.png", COLOUR[0])
    assert read_table(tmp_path).y.tolist() == [0, 1]
    # As text 10 sorts before 2, so 2 would be class 3.
    for name in ("2", "10"):
        save(tmp_path / name / "1.png", COLOUR[0])
    (problem,) = problems(tmp_path)
    assert "the label '10' is class 10 as a number, 2 as a name" in problem
    names = [str(i) for i in range(11)]
    assert read_table(tmp_path, names=names).y.tolist() == [0, 1, 10, 2]


def test_wrong_folders(tmp_path):
    assert problems(tmp_path) == [f"{tmp_path}: the folder holds no picture."]
    save(tmp_path / "a" / "1.png", COLOUR[0])
    save(tmp_path / "2.png", COLOUR[0])
    (tmp_path / "a" / "notes.txt").write_text("hello")
    found = "\n".join(problems(tmp_path))
    assert "2.png: the file lies in no label's folder" in found
    assert "a/notes.txt: the picture cannot be read" in found


def test_metadata_is_the_label_source(tmp_path):
    save(tmp_path / "1.png", COLOUR[0])
    save(tmp_path / "cat" / "2.png", COLOUR[1])
    (tmp_path / "metadata.csv").write_text("file_name,label\ncat/2.png,cat\n1.png,ant\n")
    samples = read_table(tmp_path)
    assert samples.ids == ("cat/2.png", "1.png")
    assert samples.y.tolist() == [1, 0]
    assert samples.names == ("ant", "cat")
    assert_colour(samples, (1, 0))


def test_metadata_must_agree_with_the_folders(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png", "dog/3.png"):
        save(tmp_path / name, COLOUR[0])
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,label\ncat/1.png,0\ndog/1.png,1\ndog/2.png,0\n")
    assert problems(tmp_path) == [
        f"{path} row 4: the label is '0', but the file lies in 'dog'.",
        f"{tmp_path}/dog/3.png: the file is not listed in metadata.csv. List or remove it.",
    ]


# --- all -----------------------------------------------------------------------------------------


def test_what_is_no_table(tmp_path):
    path = tmp_path / "t.csv"
    assert "no such file or folder. A table is a .csv" in problems(path)[0]
    path = tmp_path / "t.xlsx"
    path.write_bytes(b"")
    assert "this is no table of samples" in problems(path)[0]


def test_labels_beyond_the_model():
    samples = Samples(
        ids=("a", "b", "c"), x=torch.zeros(3, 1, 2, 2), y=torch.tensor([0, 10, 9]), names=None
    )
    (problem,) = check_labels(samples, 10, "test.csv")
    assert str(problem) == (
        "test.csv: the sample 'b' has the label 10. The model has 10 classes: use 0..9."
    )
    assert check_labels(samples, 11, "test.csv") == []


def places(labels):
    return [str(i) for i in range(len(labels))]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1))
def test_integers_are_themselves(numbers):
    texts = [str(number) for number in numbers]
    labels = read_labels(texts, places(texts), where="t")
    assert list(labels.numbers) == numbers
    assert labels.names is None


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"[a-z]+", fullmatch=True), min_size=1))
def test_names_are_numbered_in_order(texts):
    labels = read_labels(texts, places(texts), where="t")
    assert labels.names is not None
    assert [labels.names[number] for number in labels.numbers] == texts
    assert list(labels.names) == sorted(set(texts))


def test_numbers_that_are_names_elsewhere_are_refused():
    assert read_labels(["1", "0"], places("ab"), where="t", names=["0", "1"]).numbers == (1, 0)
    with pytest.raises(InputError, match="class 1 as a number, 0 as a name"):
        read_labels(["1", "0"], places("ab"), where="t", names=["1", "0"])
    # One word among them, and all of them known: the column holds names.
    assert read_labels(["7", "x"], places("ab"), where="t", names=["x", "7"]).numbers == (1, 0)


@pytest.mark.parametrize("label", [str(2**31), "9" * 5000, "1e3", "0x1", "١", "1_0", "nan"])
def test_what_is_no_class_number(label):
    with pytest.raises(InputError, match="is not an integer from 0"):
        read_labels(["1", label], places("ab"), where="t")
