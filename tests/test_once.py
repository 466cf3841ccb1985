"""What is made once a run: by one of several processes, and the same whoever makes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builders import once, small_case, small_text

CODE = """
import sys
from pathlib import Path
from builders import once

def make(folder):
    with open(sys.argv[2], "a") as told:
        told.write("made")
    (folder / "file").write_text("content")

print(once.made(Path(sys.argv[1]), make) / "file")
"""


def test_one_process_makes_it_and_the_others_wait(tmp_path):
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path / "it"), str(tmp_path / "told")],
            cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = {process.communicate()[0].strip() for process in crew}
    assert said == {str(tmp_path / "it/file")}
    assert (tmp_path / "told").read_text() == "made"


def test_what_fails_leaves_the_next_to_make_it(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once.made(tmp_path / "it", fail)
    whole = once.made(tmp_path / "it", lambda folder: (folder / "whole").touch())
    assert [path.name for path in whole.iterdir()] == ["whole"]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [("small_pictures", small_case.make), ("small_texts", small_text.make)],
)
def test_whoever_makes_it_makes_the_same_bytes(name, make, request, tmp_path):
    assert contents(make(tmp_path)) == contents(request.getfixturevalue(name))
