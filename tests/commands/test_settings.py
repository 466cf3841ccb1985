"""What can be said, and how: flags, audit.toml, `--help`, the README, and what needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
import yaml

from builders.audits import small_audit
from poison_audit.atomic import to_json
from poison_audit.cli import cli, invoke
from poison_audit.commands.arguments import check_settings, train_settings
from poison_audit.commands.fields import fields_of, settled
from poison_audit.commands.inputs import read_plan
from poison_audit.commands.own_settings import CI, Output
from poison_audit.commands.settings import EVIDENCE, TABLES, Methods
from poison_audit.commands.settings_table import END, START, with_table
from poison_audit.errors import PlanError
from poison_audit.poisons.readings import POISONS
from poison_audit.reports.formats import FORMATS

ROOT = Path(__file__).parents[2]


def given(**said):
    """Return the command line's values of `check`, most of them not given."""
    plain = {"model": Path("nowhere/m"), "forget": None, "config": None, "recipe": None,
             "factory": None}  # fmt: skip
    return {**plain, **said}


def options(command: str) -> list[click.Option]:
    return [each for each in cli.commands[command].params if isinstance(each, click.Option)]


# zero and empty are said


@pytest.mark.parametrize("command", cli.commands)
def test_an_empty_value_is_refused_in_words(command, capsys):
    for option in options(command):
        if option.is_flag:
            continue
        flag = option.opts[-1]
        # Every option and argument that is needed is given, so that this one alone is wrong.
        beside = [
            part
            for each in cli.commands[command].params
            if each.required and each is not option
            for part in (
                [each.opts[-1], each.metavar.split("|")[0]]
                if isinstance(each, click.Option)
                else ["x"]
            )
        ]
        assert invoke([command, *beside, flag, ""]) == 2
        err = capsys.readouterr().err
        assert flag in err, err
        assert "expected" in err, err


ZERO = {"--budget": "above 0", "--seeds": "above 0", "--found": "above 0", "--tune": "from 1",
        "--rehearse-sigma": "above 0", "--alpha": "between 0 and 0.5"}  # fmt: skip


@pytest.mark.parametrize("flag", ZERO)
def test_zero_is_a_number(flag, capsys, tmp_path):
    model = str(tmp_path / "none.safetensors")
    assert invoke(["check", model, flag, "0", "--recipe", "epochs=1"]) == 2
    assert f"  - {flag}: must" in (err := capsys.readouterr().err)
    assert ZERO[flag] in err


def test_zero_given_wins_over_the_file(tmp_path):
    path = tmp_path / "audit.toml"
    path.write_text("[model]\nmax_tokens = 9\n[plan]\nseed = 5\nfound_seed = 6\n", encoding="utf-8")
    asked = check_settings(given(config=path, max_tokens=0, seed=0, found_seed=0))
    assert (asked.texts.max_tokens, asked.subject.seed, asked.methods.found_seed) == (0, 0, 0)
    assert not asked.problems
    asked = check_settings(given(config=path))
    assert (asked.texts.max_tokens, asked.subject.seed, asked.methods.found_seed) == (9, 5, 6)


def test_zero_given_to_train_is_given(tmp_path):
    said = {"data": tmp_path / "t.npz", "output": tmp_path / "m", "config": None, "recipe": None,
            "factory": None, "max_tokens": 0, "fresh": False, "prompt": None}  # fmt: skip
    assert train_settings(said).given == {"data", "output", "max_tokens"}


def test_a_factory_stands_for_the_architecture_of_the_file(tmp_path):
    path = tmp_path / "audit.toml"
    path.write_text('[model]\narch = "resnet18"\n', encoding="utf-8")
    assert check_settings(given(config=path)).architecture.arch == "resnet18"
    assert check_settings(given(config=path, factory="a:b")).architecture.arch is None


# one source


def test_what_nobody_says_is_the_default():
    assert settled(Methods, {}) == Methods()
    made = read_plan(check_settings(given(methods=("none",))))
    assert (made.budget, made.seeds, made.found, made.tune) == (0.1, 1, 1.0, 0)
    with pytest.raises(PlanError, match="--seeds"):
        read_plan(check_settings(given(seeds=0)))


def test_every_key_of_audit_toml_is_a_flag_of_check():
    flags = {flag for option in options("check") for flag in option.opts}
    for table, keys in TABLES.items():
        for key, declared in keys.items():
            assert declared.flag.split()[0] in flags, f"[{table}] {key}"


def test_every_evidence_file_of_the_poisons_is_a_flag_and_a_key():
    files = {file.name: poison.table for poison in POISONS.values() for file in poison.files}
    assert {name: declared.table for name, declared in EVIDENCE.items()} == files
    assert all(name in TABLES[table] for name, table in files.items())


def test_every_field_of_a_part_is_declared():
    assert {each.name for each in fields(Output)} == set(fields_of(Output))


def test_the_formats_that_help_names_are_those_there_are():
    (declared,) = [d for name, d in fields_of(Output).items() if name == "formats"]
    assert set(declared.help.rstrip(".").split(", ")) == set(FORMATS)


def test_an_unknown_format_is_refused(capsys):
    assert invoke(["render", "r", "--format", "markdwn,html"]) == 2
    assert "no format is named markdwn. Did you mean markdown?" in capsys.readouterr().err


def test_the_readme_s_table_is_fresh():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert START in text
    assert END in text
    assert text == with_table(text), "python -m poison_audit.commands.settings_table README.md"


def test_help_is_in_groups_and_shows_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert invoke(["check", "--help"]) == 0
    out = capsys.readouterr().out
    headings = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == ["Model:", "Data:", "Evidence:", "Policy:", "Methods:", "Output:", "Other:"]
    for said in ("[default: 0.1]", "[default: all]", "[default: auto]", "gaussian 0.25",
                 "[default: beside MODEL]"):  # fmt: skip
        assert said in out


# a job for CI


@pytest.mark.parametrize("kind", CI)
def test_init_writes_a_job(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["init", "--ci", kind]) == 0
    template, place = CI[kind]
    assert place in capsys.readouterr().out
    text = (tmp_path / place).read_text(encoding="utf-8")
    assert text == (ROOT / "templates" / "ci" / template).read_text(encoding="utf-8")
    if template.endswith(".yml"):
        assert "poison-audit probe" in json.dumps(yaml.safe_load(text))
    assert invoke(["init", "--ci", kind]) == 2
    assert "Overwrite it by --force" in capsys.readouterr().err
    assert invoke(["init", "--ci", kind, "--force"]) == 0
    assert invoke(["init", "--ci", kind, "-o", "job.yml"]) == 0
    assert (tmp_path / "job.yml").read_text(encoding="utf-8") == text


def test_init_of_nothing_says_what_can_be_written(capsys):
    assert invoke(["init"]) == 2
    assert "Give MODEL, or --ci github" in capsys.readouterr().err


# without torch

WITHOUT_TORCH = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "transformers", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from poison_audit.cli import invoke

said = {}
for line in json.loads(sys.argv[1]):
    err = io.StringIO()
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())), redirect_stderr(err):
        code = invoke(line)
    said[" ".join(line)] = code, err.getvalue()
print(json.dumps(said))
"""
NEED = {
    "check": ["check", "m.safetensors"],
    "probe": ["probe", "m.safetensors"],
    "unlearn": ["unlearn", "m.safetensors", "--method", "gd", "-o", "o"],
    "plant": ["plant", "t.npz", "--attack", "indiscriminate", "-o", "o"],
    "train": ["train", "t.npz", "-o", "o"],
    "init": ["init", "m.safetensors"],
    "methods": ["methods"],
}


WRONG = [
    ["check", "m.safetensors", "--alpha", "2", "--tolerance", "gausian=0.1", "--ray-gpus", "1",
     "--rehearse-sigma", "11", "--recipe", "epochs=-1", "--set", "alpha=1"],
    ["probe", "m.safetensors", "--alpha", "2"],
    ["unlearn", "m.safetensors", "--method", "gd", "-o", "o", "--recipe", "speed=1"],
    ["repair", "m.safetensors", "-o", "o.safetensors", "--tolerance", "backdoor=x"],
]  # fmt: skip
"""Wrong by the flags alone, so that no torch is needed to say it."""


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    """By command line, the exit code and stderr where torch cannot be imported."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.json").write_text(to_json(small_audit()), encoding="utf-8")
    lines = [*NEED.values(), *WRONG, ["doctor"], ["probes"], ["--help"], ["check", "--help"],
             ["init", "--ci", "gitlab"], ["render", "."], ["decide", "."], ["diff", ".", "."],
             ["verify", ".", "--no-files"]]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(lines)], cwd=folder, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", NEED)
def test_what_needs_torch_says_so_in_a_line(without_torch, command):
    code, err = without_torch[" ".join(NEED[command])]
    assert code == 2
    assert "torch is not installed" in err
    assert "pip install torch" in err
    assert "Traceback" not in err


def test_wrong_flags_are_refused_before_torch_is_imported(without_torch):
    told = [without_torch[" ".join(line)] for line in WRONG]
    assert {code for code, _ in told} == {2}
    assert not any("torch" in err for _, err in told)
    for flag in ("--alpha", "--tolerance", "--ray-gpus", "--rehearse-sigma", "--recipe", "--set"):
        assert f"  - {flag}" in told[0][1], told[0][1]  # all of them at once
    assert "'gausian'. Did you mean gaussian?" in told[0][1]
    assert "--alpha: must lie between 0 and 0.5, got 2.0" in told[1][1]
    assert "--recipe speed=1: unknown key 'speed'" in told[2][1]
    assert "--tolerance backdoor: expected a number, got 'x'" in told[3][1]


def test_everything_else_works_without_torch(without_torch):
    codes = {line: code for line, (code, _) in without_torch.items()
             if line.split() not in [*NEED.values(), *WRONG]}  # fmt: skip
    # A record that no audit wrote has no seal to be compared with.
    reading = {"render .": 1, "decide .": 1, "diff . .": 0, "verify . --no-files": 3}
    rest = {"doctor": 0, "probes": 0, "--help": 0, "check --help": 0, "init --ci gitlab": 0}
    assert codes == {**rest, **reading}


def test_doctor_says_that_torch_is_missing():
    code = (
        "import sys; sys.modules['torch'] = None; from poison_audit.cli import invoke; "
        "sys.exit(invoke(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "only reports can be read here" in done.stdout
