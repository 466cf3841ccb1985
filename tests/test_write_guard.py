"""Nothing is written outside the run directory but the user's key, once; no process or connection
is made that is not told.

Python's audit events see every file that is opened, renamed, made or removed, every process and
every connection, by whatever library.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import poison_audit
from builders.small_case import FLAGS

ROOT = Path(__file__).parent.parent
WATCH = """
import json, os, sys

seen = []

def watch(event, args):
    if event == "open":
        path, mode, flags = args
        written = isinstance(mode, str) and set(mode) & set("wax+")
        if written or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            # An open descriptor has been seen under its name already.
            where = "/dev/null" if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
            seen.append([event, where])
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown",
                   "os.utime", "shutil.rmtree"):
        seen.append([event, os.path.abspath(os.fsdecode(args[0]))])
    elif event in ("os.rename", "os.link", "os.symlink"):
        seen.append([event, os.path.abspath(os.fsdecode(args[1]))])
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        seen.append([event, os.fsdecode(args[0])])
    elif event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        seen.append([event, str(args[1:])])

sys.addaudithook(watch)
from poison_audit.cli import invoke
code = invoke(sys.argv[2:])
told = seen[:]
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "seen": told}, file)
"""
# What libraries do on their own: where temporary files could go, empty caches, what machine it is.
LIBRARIES = re.compile(
    r"/dev/null|.*/(matplotlib|torchinductor_[^/]*)(/.*)?|/tmp/[a-z0-9_]{8}|.*/__pycache__/.*"
)
PROCESSES = {"uname", "/sbin/ldconfig", "git"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "probe"])
def test_an_audit_writes_into_its_run_directory_alone(case, tmp_path, command):
    told = tmp_path / "told.json"
    formats = "junit,sarif,markdown,in-toto,cyclonedx"
    methods = ["--methods", "gd,ssd", "--keep"] if command == "check" else []
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(told), command, "model.safetensors", "--forget",
         "forget.csv", *FLAGS, *methods, "--out", "out", "--format", formats],
        cwd=case, capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )  # fmt: skip
    seen = json.loads(told.read_text("utf-8"))
    assert seen["code"] in (0, 1, 3), done.stderr
    inside, outside = f"{case / 'out'}", []
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file()] == [
        tmp_path / "state" / "poison-audit" / "key"
    ]
    for event, what in seen["seen"]:
        if event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system"):
            assert what in PROCESSES
        elif event.startswith("socket.") or not (
            what == inside
            or what.startswith((f"{inside}{os.sep}", f"{tmp_path / 'state'}"))
            or LIBRARIES.fullmatch(what)
        ):
            outside.append((event, what))
    assert outside == []
    assert any(what.endswith("report.html") for event, what in seen["seen"] if event == "os.rename")


NETWORK = {
    "aiohttp", "ftplib", "http", "httplib2", "httpx", "requests", "smtplib", "socket",
    "socketserver", "ssl", "urllib3", "xmlrpc", "sentry_sdk", "wandb",
}  # fmt: skip
CODE = {"dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "code"}


WORKERS = "/poison_audit/engine/cluster.py"
"""What Ray's workers are given and give back: Ray itself sends pickles, and no file comes in."""


def shipped() -> list[Path]:
    """Every Python file of the package that is imported."""
    folders = os.walk(Path(poison_audit.__file__).parent, followlinks=True)
    return sorted(Path(at) / name for at, _, names in folders for name in names
                  if name.endswith(".py"))  # fmt: skip


def test_what_is_shipped_names_no_network_and_no_code_from_data():
    files = shipped()
    assert len(files) > 100
    for path in files:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in NETWORK | CODE, f"{path} imports {name}"
                assert name != "urllib.request", path
            if isinstance(node, ast.Call):
                text = ast.unparse(node)
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "__import__", "os.system"), path
                assert not called.startswith(("pickle.load", "pickle.Unpickler")), path
                if called == "torch.load" and not path.as_posix().endswith(WORKERS):
                    assert "weights_only=True" in text, path
                assert "shell=True" not in text, path
                assert "trust_remote_code=True" not in text, path
                assert "allow_pickle=True" not in text, path
