"""An audit.toml that a command writes: it reads back, and what a person wrote stays."""

import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from poison_audit.commands.config import HEAD, read_config, write_config
from poison_audit.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "audit.toml"
    path.write_text(text, encoding="utf-8")
    return path


# writing

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
TABLE_NAMES = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,5}", fullmatch=True), min_size=1, max_size=3)
TREES = st.dictionaries(
    TABLE_NAMES.map(".".join), st.dictionaries(TEXT, VALUES, min_size=1, max_size=3), max_size=4
)


@given(TREES)
def test_what_is_written_reads_back(tree):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.toml"
        try:
            write_config(path, tree)
        except InputError as error:
            assume("is a value, expected a table" not in str(error))
            raise
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    said = [
        ((*name.split("."), key), repr(value))
        for name, content in tree.items()
        for key, value in content.items()
    ]
    assert sorted(flat(read)) == sorted(said)  # repr tells 1 from 1.0 and True


def flat(tree, at=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, (*at, key))
        else:
            yield (*at, key), repr(value)


@pytest.mark.parametrize("value", [None, object(), [None], "\ud800"])
def test_what_toml_cannot_say_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(InputError, match="cannot be written"):
        write_config(tmp_path / "audit.toml", {"model": {"arch": value}})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_its_own_is_merged_and_stays_readable(tmp_path):
    path = tmp_path / "new" / "audit.toml"
    write_config(path, {"model": {"arch": "a", "normalize": "none"}})
    more = {"model": {"arch": "b"}, "evidence.gaussian": {"canaries": "k.json"}}
    write_config(path, more)
    text = path.read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert text.split("\n", 2)[2] == (
        '[model]\narch = "b"\nnormalize = "none"\n\n[evidence.gaussian]\ncanaries = "k.json"\n'
    )
    assert read_config(path).get("evidence.gaussian", "canaries") == path.parent / "k.json"


OF_A_PERSON = """\
# Ours.
[model]  # as deployed
arch = "resnet18"  # not resnet34

# Only clean pictures.
[data]
test = "t.npz"
"""


def test_comments_and_order_of_a_file_that_a_person_wrote_are_kept(tmp_path):
    path = write(tmp_path, OF_A_PERSON)
    write_config(path, {"model": {"arch": "resnet18"}})
    assert path.read_text(encoding="utf-8") == OF_A_PERSON  # it says so already
    more = {"model": {"arch": "vgg11", "normalize": "none"}, "training": {"momentum": 0.9}}
    write_config(path, more)
    assert (
        path.read_text(encoding="utf-8")
        == """\
# Ours.
[model]  # as deployed
arch = "vgg11"  # not resnet34
normalize = "none"

# Only clean pictures.
[data]
test = "t.npz"

[training]
momentum = 0.9
"""
    )


def test_a_broken_file_is_refused_before_it_is_written(tmp_path):
    path = write(tmp_path, "[model\n")
    with pytest.raises(InputError, match="not valid TOML"):
        write_config(path, {"model": {"arch": "a"}})
    write(tmp_path, "evidence = 1\n")
    with pytest.raises(InputError, match=r"expected a table \[evidence.gaussian\]"):
        write_config(path, {"evidence.gaussian": {"canaries": "k.json"}})
