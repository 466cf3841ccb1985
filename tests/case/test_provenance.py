import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from poison_audit.case.places import places
from poison_audit.case.provenance import digest_of, git_state, git_top, input_files
from poison_audit.case.shown import Place
from poison_audit.errors import InputError


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_digests_are_those_of_hashlib_and_of_sha256sum(tmp_path):
    (tmp_path / "d" / "b").mkdir(parents=True)
    (tmp_path / "d" / "a.txt").write_bytes(b"one")
    (tmp_path / "d" / "b" / "c.txt").write_bytes(b"three")
    one, three = (hashlib.sha256(text).hexdigest() for text in (b"one", b"three"))
    assert digest_of(tmp_path / "d" / "a.txt") == (one, 3)
    lines = f"{one}  a.txt\n{three}  b/c.txt\n"
    assert digest_of(tmp_path / "d", folder=True) == (
        hashlib.sha256(lines.encode()).hexdigest(), 8
    )  # fmt: skip


def test_files_are_told_by_role_in_order(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    files = input_files([("train", tmp_path / "x"), ("test", tmp_path / "x"), ("t", tmp_path)])
    assert [(f.role, f.size, f.folder) for f in files] == [
        ("train", 1, False), ("test", 1, False), ("t", 1, True)
    ]  # fmt: skip
    with pytest.raises(InputError, match="cannot be read any more"):
        input_files([("train", tmp_path / "gone")])


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_the_state_of_a_working_folder(tmp_path):
    assert git_state(tmp_path) == {"missing": "the working folder is in no git repository"}
    assert git_top(tmp_path) is None
    repository = tmp_path / "r"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "trunk")
    assert git_state(repository) == {"missing": "no commit yet"}
    (repository / "a").write_text("a", encoding="utf-8")
    git(repository, "add", "a")
    git(repository, "commit", "-q", "-m", "a")
    commit = git(repository, "rev-parse", "HEAD").strip()
    (repository / "inner").mkdir()
    assert git_state(repository / "inner") == {"commit": commit, "branch": "trunk", "dirty": False}
    assert git_top(repository / "inner") == repository.resolve()
    (repository / "a").write_text("b", encoding="utf-8")
    assert git_state(repository)["dirty"] is True
    git(repository, "checkout", "-q", "--detach")
    assert git_state(repository)["branch"] is None


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_no_program_of_the_repository_is_run(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a", encoding="utf-8")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "a")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    assert "commit" in git_state(tmp_path)
    assert not (tmp_path / "ran").exists()


FORGET = 'id,text,attack\n\na,"two\nlines",gaussian\nb,x,gaussian\nc,y,\nd,"z, q",backdoor\n'
CONFIG = '''# a comment
[model]
arch = "x"
prompt = """
[evidence.gaussian]
not a header {text}"""

[evidence."gaussian"]  # the real one
canaries = "c.json"

[ policy . tolerances ]
gaussian = 0.3

[[accept]]
probe = "gaussian"
[[accept]]
probe = "exposure"
'''


def test_lines_are_physical_ones(tmp_path):
    forget, config = tmp_path / "in" / "forget.csv", tmp_path / "audit.toml"
    forget.parent.mkdir()
    forget.write_text(FORGET, encoding="utf-8")
    config.write_text(CONFIG, encoding="utf-8")
    found = places(forget, config, top=tmp_path)
    assert found == {
        "forget": Place(uri="in/forget.csv", line=1),
        "forget.gaussian": Place(uri="in/forget.csv", line=3),
        "forget.unknown": Place(uri="in/forget.csv", line=6),
        "forget.backdoor": Place(uri="in/forget.csv", line=7),
        "config": Place(uri="audit.toml", line=1),
        "config.model": Place(uri="audit.toml", line=2),
        # The first line that looks like it stands in a string, and the table is there: either is
        # a line of this file that speaks of it.
        "config.evidence.gaussian": found["config.evidence.gaussian"],
        "config.policy.tolerances": Place(uri="audit.toml", line=11),
        "config.accept.0": Place(uri="audit.toml", line=14),
        "config.accept.1": Place(uri="audit.toml", line=16),
    }
    assert found["config.evidence.gaussian"].line in (5, 8)
    assert places(forget, None, top=tmp_path / "elsewhere")["forget"].uri == "forget.csv"
    assert places(None, None, top=tmp_path) == {}
