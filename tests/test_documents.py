"""What the documents and the project say of the tree: it is so."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import poison_audit
from builders.tiny import samples_of
from poison_audit.case.forget import read_forget
from poison_audit.cli import cli
from poison_audit.methods import METHODS
from poison_audit.poisons import readings
from poison_audit.poisons.backdoor.evidence import read_trigger
from poison_audit.poisons.backdoor.phrase import read_phrase
from poison_audit.poisons.gaussian.evidence import read_canaries
from poison_audit.poisons.readings import POISONS
from poison_audit.poisons.targeted.evidence import read_targets
from poison_audit.poisons.token_canary.evidence import read_strings
from poison_audit.reports.formats import FORMATS
from poison_audit.verdict.gate import EXIT_CODES
from poison_audit.verdict.readings import READINGS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for room in ("*.md", ".github/*.md", "audit/**/*.md", "reports/**/*.md", "tests/*/README.md")
    for path in ROOT.glob(room)
)
FILES = (ROOT / "audit/poisons/README.md").read_text("utf-8")


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def _names(text: str) -> set[str]:
    """Return how a text's headings are linked to, as GitHub makes it."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert poison_audit.__version__ == project["version"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text("utf-8")
    missing = []
    for file, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        path = ROOT / document.parent / file if file else ROOT / document
        if "://" in file or (path.exists() and not heading):
            continue
        if not path.exists() or heading not in _names(path.read_text("utf-8")):
            missing.append((file, heading))
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_are_named_exist(document):
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(
        r"(?<![\w./-])(?:audit|reports|templates|tests|fixtures)/[\w./-]+\.(?:py|md|json|yml|j2|csv)\b",
        text,
    )
    missing = {name for name in named if "NAME" not in name and not (ROOT / name).exists()}
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_what_is_imported_is_there(document):
    for block in _blocks((ROOT / document).read_text("utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("poison_audit"):
                module = importlib.import_module(str(node.module))
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []


def test_the_commands_of_the_readme_are_whole_lines():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    audit, tests = (line.strip() for line in lines if "python3 -m venv" in line)
    assert audit.endswith(
        "poison-audit check fixtures/digits/model.safetensors --forget fixtures/digits/forget.csv"
    )
    # .ci/run looks for it like this.
    assert re.fullmatch(r"python3 -m venv .*pytest", tests)


def test_the_examples_of_evidence_are_read(tmp_path):
    canaries, strings, patch, blend, phrase, template = (
        _written(tmp_path, number, block) for number, block in enumerate(_blocks(FILES, "json"))
    )
    assert read_canaries(canaries).shape == (1, 32, 32)
    assert len(read_strings(strings).text("string-0000").split()) == 10
    assert read_trigger(patch, shape=(1, 32, 32), classes=10).label == 3
    Image.new("RGB", (32, 32), "red").save(tmp_path / "noise.png")
    assert read_trigger(blend, shape=(3, 32, 32), classes=10).keep.unique().tolist() == [
        pytest.approx(0.8)
    ]
    for trigger in (phrase, template):
        assert read_phrase(trigger, classes=2, names=["negative", "positive"]).label == 1


def test_the_examples_of_tables_are_read(tmp_path):
    forget, targets = (
        _written(tmp_path, number, block) for number, block in enumerate(_blocks(FILES, "csv"))
    )
    train = samples_of(torch.zeros(4, 1, 32, 32), torch.tensor([7, 3, 7, 1]))
    train = replace(train, ids=("canary-0000", "backdoor-0000", "targeted-0000", "bought-0042"))
    read = read_forget(forget, train, where_train="train.npz", poisons=readings.POISONS)
    assert read.attacks == ("gaussian", "backdoor", "targeted", "")
    assert read.campaigns[3] == "vendor-b"
    test = samples_of(torch.zeros(2, 1, 32, 32), torch.tensor([9, 9]))
    test = replace(test, ids=("digit-0069", "digit-0325"))
    named = read_targets(targets, test, where_test="test.npz")
    assert named.adversarial.tolist() == [7]
    assert named.controls is not None
    assert named.controls.samples.ids == ("digit-0325",)


def _written(folder: Path, number: int, text: str) -> Path:
    path = folder / f"{number}"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_picture_is_small():
    assert (ROOT / "reports/page.png").stat().st_size <= 200_000


def test_the_tables_of_the_documents_are_whole():
    """Whatever a table of the code holds has its row in the document of that room."""

    def first_cells(document: str) -> set[str]:
        text = (ROOT / document).read_text("utf-8")
        cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
        return {name.strip("` ") for cell in cells for name in cell.split(", ")}

    assert set(METHODS) <= first_cells("audit/methods/README.md")
    assert set(POISONS) <= first_cells("audit/poisons/README.md")
    assert set(FORMATS) <= first_cells("reports/README.md")
    assert {each.value for each in EXIT_CODES} - {"NOT_MEASURED"} <= first_cells("README.md")


def test_the_tolerances_that_are_told_are_the_defaults():
    text = (ROOT / "audit/verdict/README.md").read_text("utf-8")
    told = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+)(?: points?|,)", text, re.MULTILINE))
    scale = {name: 100 if reading.points else 1 for name, reading in READINGS.items()}
    expected = {
        name: f"{scale[name] * reading.tolerance:g}"
        for name, reading in READINGS.items()
        if reading.tolerance is not None
    }
    assert told == expected


def test_the_jobs_install_this_version():
    for name in ("github.yml", "gitlab.yml"):
        text = (ROOT / "templates/ci" / name).read_text("utf-8")
        assert set(re.findall(r"poison-audit(?:==|-)(\d[\d.]*)", text)) == {
            poison_audit.__version__
        }


def test_help_names_every_format():
    done = CliRunner().invoke(cli, ["render", "--help"])
    assert [name for name in FORMATS if not re.search(rf"\b{name}\b", done.output)] == []


def test_a_report_is_read_again_with_the_packages_that_are_named(tmp_path):
    """Of the project's dependencies, what the four commands import is what is said to suffice."""
    text = (ROOT / "reports/README.md").read_text("utf-8")
    (line,) = re.findall(r"pip install --no-deps \. && pip install (.*)", text)
    report = str(ROOT / "tests/reports/version_1.json")
    commands = [
        ["render", report, "--format", ",".join(FORMATS), "-o", str(tmp_path)],
        ["verify", report, "--no-files"],
        ["decide", report, "--alpha", "0.04"],
        ["diff", report, report],
    ]
    code = (
        "import sys; from poison_audit.cli import invoke\n"
        f"for command in {commands!r}: assert invoke(command) in (0, 1, 3), command\n"
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = {re.split("[^a-z0-9-]", each)[0] for each in project["dependencies"]}
    loaded = known & set(done.stdout.splitlines()[-1].split())
    # annotated-types comes with pydantic, pillow with matplotlib: their modules have other names.
    assert loaded == set(line.split())
