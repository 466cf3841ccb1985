"""What the documents and the project say of the tree: it is so."""

import re
import tomllib
from pathlib import Path

import pytest

import poison_audit

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for room in ("*.md", ".github/*.md", "audit/**/*.md", "reports/**/*.md", "tests/*/*.md")
    for path in ROOT.glob(room)
)


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert poison_audit.__version__ == project["version"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    inside = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    missing = [link for link in inside if not (ROOT / document.parent / link).exists()]
    assert missing == []
