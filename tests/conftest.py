"""What all tests share: one thread in every process, and cases that are trained once a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# Before torch is imported, and inherited by the processes that tests start: other numbers of
# threads add in other orders, so that what is trained here would end elsewhere by the machine.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# What a property takes on a machine where others work, too, says nothing about it. A whole record
# takes minutes to shrink; `--hypothesis-profile default` shrinks what is small.
settings.register_profile(
    "any clock",
    deadline=None,
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
settings.load_profile("any clock")

# Their assertions are told as a test's own are.
pytest.register_assert_rewrite("builders")


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Sign with a key of this run of the tests, and leave the user's alone."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ.pop("POISON_AUDIT_KEY", None)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of this run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def small_pictures(shared: Path) -> Path:
    """Return the small case of pictures. It belongs to every test: copy it before writing."""
    from builders import once, small_case

    return once.made(shared / "small-pictures", small_case.make)


@pytest.fixture(scope="session")
def small_texts(shared: Path) -> Path:
    """Return the small case of texts. It belongs to every test: copy it before writing."""
    from builders import once, small_text

    return once.made(shared / "small-texts", small_text.make)


@pytest.fixture
def no_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out how many samples would decide: no part of any outcome, and most of its time."""
    # Who takes it by name takes the real one first, and would keep this one for all that follow.
    import poison_audit.statistics.squares  # noqa: F401

    monkeypatch.setattr("poison_audit.statistics.rates.smallest_size", lambda passes: 1)


@pytest.fixture
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a page without charts, which take most of a small audit: for who reads report.json."""
    page = '<meta name="generator" content="poison-audit">'
    monkeypatch.setattr("poison_audit.reports.page.html.render_html", lambda record: page)


@pytest.fixture
def case(small_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the small case of pictures, which is the working directory."""
    folder = shutil.copytree(small_pictures, tmp_path / "case")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in float32, whatever is fast: bfloat16's roundings differ by kernel."""
    monkeypatch.setattr("poison_audit.training.loop.fast_precision", lambda device: "float32")


@pytest.fixture(scope="session")
def device_pictures(small_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return a case of pictures on the CPU and on the pretend device."""
    from builders import device_cases

    folder = tmp_path_factory.mktemp("device") / "pictures"
    files = device_cases.picture_files(small_pictures, folder)
    return device_cases.twins(files, device_cases.PICTURES)


@pytest.fixture(scope="session")
def device_texts(small_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return a case of texts on both; its GPT-2 has dropout."""
    from builders import device_cases

    folder = tmp_path_factory.mktemp("device") / "texts"
    return device_cases.twins(device_cases.text_files(small_texts, folder), device_cases.TEXTS)


@pytest.fixture(scope="session")
def device_words(small_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return a case of texts whose classes are words, on both."""
    from builders import device_cases

    folder = tmp_path_factory.mktemp("device") / "words"
    return device_cases.twins(device_cases.word_files(small_texts, folder), device_cases.TEXTS)
