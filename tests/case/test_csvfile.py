"""Tables of text cells, as programs write them."""

import gzip
import json

import pytest

from poison_audit.case.csvfile import read_csv
from poison_audit.case.labels import read_labels
from poison_audit.case.places import places
from poison_audit.errors import InputError

ROWS = (("a", "1"), ("b,c", "2"), ("d;e\tf", "3"))


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(path, **options):
    return [tuple(row.values()) for row in read_csv(path, needed=(), **options).rows]


def said(path, **options):
    with pytest.raises(InputError) as caught:
        read_csv(path, **{"needed": (), **options})
    return [str(problem).removeprefix(f"{path.parent}/") for problem in caught.value.problems]


LINES = "".join(json.dumps({"id": a, "label": b}) + "\n" for a, b in ROWS)
COMMA = 'id,label\na,1\n"b,c",2\nd;e\tf,3\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", COMMA),
        ("t.csv", COMMA.replace("\n", "\r\n")),
        ("t.csv", "\ufeff" + COMMA),
        ("t.csv", COMMA.encode("utf-16")),
        ("t.csv", "\n\n" + COMMA),
        ("t.csv", 'id;label\na;1\nb,c;2\n"d;e\tf";3\n'),
        ("t.csv", 'sep=;\nid;label\na;1\nb,c;2\n"d;e\tf";3\n'),
        ("t.csv", 'id\tlabel\na\t1\nb,c\t2\n"d;e\tf"\t3\n'),
        ("t.tsv", 'id\tlabel\na\t1\nb,c\t2\n"d;e\tf"\t3\n'),
        ("t.TSV", COMMA),
        ("t.csv.gz", gzip.compress(COMMA.encode(), mtime=0)),
        ("t.csv", gzip.compress(COMMA.encode(), mtime=0)),
        ("t.tsv.gz", gzip.compress(b'id\tlabel\na\t1\nb,c\t2\n"d;e\tf"\t3\n', mtime=0)),
        ("t.jsonl", "".join(json.dumps({"id": a, "label": int(b)}) + "\n" for a, b in ROWS)),
        ("t.ndjson", "".join(json.dumps({"id": a, "label": b}) + "\r\n\r\n" for a, b in ROWS)),
        ("t.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
    ],
)  # fmt: skip
def test_every_way_holds_the_same_rows(tmp_path, name, content):
    assert cells(write(tmp_path, name, content)) == list(ROWS)


def test_a_table_of_one_column_is_parted_by_nothing(tmp_path):
    assert cells(write(tmp_path, "t.csv", 'text\n"a, b"\nc; d\n')) == [("a, b",), ("c; d",)]


def test_cells_of_json_lines(tmp_path):
    path = write(tmp_path, "t.jsonl", '{"a": " x ", "b": 12.0}\n\n{"b": true, "c": [1]}\n')
    table = read_csv(path, needed=("a",))
    assert table.columns == ("a", "b", "c")
    assert [tuple(row.values()) for row in table.rows] == [("x", "12.0", ""), ("", "true", "[1]")]
    assert table.places() == [f"{path} line 1", f"{path} line 3"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.jsonl", "", "t.jsonl: the file is empty."),
        ("t.jsonl", '{"a": 1}\n{"a": ', "t.jsonl line 2: not JSON (Expecting value"),
        ("t.jsonl", '{"a": 1}\n[1]\n', "t.jsonl line 2: expected an object {...}, got list."),
        ("t.jsonl", '{"a": 1, "a": 2}\n', "line 1: not JSON (the key 'a' appears twice)."),
        ("t.jsonl", '{"a": "\\ud800"}\n', "t.jsonl line 1: a text holds half a character"),
        ("t.jsonl", '{"\\ud800": 1}\n', "t.jsonl: a text holds half a character"),
        ("t.jsonl", '{"a": ' + "9" * 5000 + "}\n", "t.jsonl line 1: not JSON (Exceeds the limit"),
        ("t.jsonl", "[" * 100_000, "t.jsonl line 1: not JSON ("),
        (
            "t.csv.gz",
            gzip.compress(COMMA.encode(), mtime=0)[:-9],
            "t.csv.gz: not a whole gzip file (",
        ),
        (
            "t.csv.gz",
            gzip.compress(bytes(80 << 20), mtime=0),
            "t.csv.gz: more than 64 MiB once unpacked.",
        ),
        ("t.csv", COMMA.encode("utf-16")[:-1], "t.csv: not UTF-16 (byte"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path, name, content, expected):
    (problem,) = said(write(tmp_path, name, content))
    assert expected in problem


ALIASES = {"path": ("file", "image"), "label": ("class", "target")}


def test_columns_by_other_names(tmp_path):
    path = write(tmp_path, "t.csv", "File,class,target,label\na,b,c,d\n")
    table = read_csv(path, needed=("path", "label"), aliases=ALIASES)
    # What has the name is meant, whatever else is there.
    assert table.columns == ("path", "class", "target", "label")
    path = write(tmp_path, "t.csv", "File,class,target\na,b,c\n")
    (problem,) = said(path, aliases=ALIASES)
    assert problem == (
        "t.csv: the columns 'class' and 'target' may both be the label. "
        "Rename the one that is meant to 'label'."
    )


def test_columns_without_a_name_are_nobodys(tmp_path):
    assert cells(write(tmp_path, "t.csv", ",,id\n0,0,a\n1,1,b\n")) == [("0", "a"), ("1", "b")]


def test_labels_that_pandas_made_fractions_of():
    texts = ["0.0", "2.000000000000000000e+00", "1e1", "3"]
    assert read_labels(texts, list("abcd"), where="t").numbers == (0, 2, 10, 3)
    for text in ("1.5", "1e-1", "1e400", "nan", "inf", "-1.0", "1.0.0", "٣.0", "1e40"):
        with pytest.raises(InputError, match="is not an integer from 0"):
            read_labels(["1", text], list("ab"), where="t")


def test_lines_are_pointed_at_whatever_parts_the_cells(tmp_path):
    text = 'sep=;\nid;attack\n"a\nb";backdoor\n\nc;gaussian\nd;\n'
    found = places(write(tmp_path, "forget.csv", text), None, top=tmp_path)
    assert {key: place.line for key, place in found.items()} == {
        "forget": 1, "forget.backdoor": 3, "forget.gaussian": 6, "forget.unknown": 7,
    }  # fmt: skip
