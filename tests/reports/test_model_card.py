"""The model card, read by huggingface_hub as the Hub's own tools read one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.audits import audits
from builders.more_records import ALL as EVERY
from poison_audit.records import Outcome
from poison_audit.reports.formats.markdown import render_markdown
from poison_audit.reports.formats.model_card import _yaml, render_model_card
from poison_audit.reports.view.words import printable

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
from huggingface_hub import ModelCard


def read(record) -> Any:
    text = render_model_card(record)
    card: Any = ModelCard(text)
    # The text below the block is all that a pull request would be told: verdict, figures, limits.
    assert card.text.lstrip("\n") == render_markdown(record)
    assert text.startswith('---\ntags:\n  - "poison-audit"\n')
    return card


def check(record) -> None:
    card = read(record)
    whose = record.verdict.gate
    if whose not in {each.candidate for each in record.verdict.candidates}:
        whose = next((c.candidate for c in record.verdict.candidates if c.kind == "deployed"), None)
    expected = {
        (f"poison-audit/{f.probe}" + f"/{f.way}" * bool(f.way), f.statistic, f.seed)
        for f in record.findings
        if f.candidate == whose and f.gating and f.outcome is not Outcome.INFO
        and f.statistic is not None
    }  # fmt: skip
    told = [each for each in card.data.eval_results or () if each.metric_type != "accuracy"]
    assert len(told) == len(expected)
    for each in told:
        seed = int(each.metric_name.rpartition("seed ")[2])
        assert (each.metric_type, each.metric_value, seed) in expected
        # A figure stands nowhere without what it means.
        assert any(f"{outcome}." in each.metric_name for outcome in Outcome)
    for each in card.data.eval_results or ():
        assert math.isfinite(each.metric_value)
        assert each.task_type in ("image-classification", "text-classification")
        assert each.source_name == f"poison-audit {printable(record.tool_version)}"
        assert each.verified is None  # says the Hub, and nobody else


@pytest.mark.parametrize("name", EVERY)
def test_a_card_is_read_by_the_hub_s_library(name):
    check(EVERY[name]())


@pytest.mark.usefixtures("no_sizes")
@settings(max_examples=10)
@given(audits())
def test_so_is_that_of_any_audit(record):
    check(record)


def test_the_figures_of_the_deployed_model():
    record = EVERY["residual"]()
    card = read(record)
    assert card.data.model_name == record.subject["model"].rpartition("/")[2]
    gaussian, *_, accuracy = card.data.eval_results
    assert (gaussian.metric_type, gaussian.metric_value) == ("poison-audit/gaussian", 1.29)
    assert gaussian.metric_name.startswith(
        "Gaussian, mean leak score: RESIDUAL. 1.29 [1.132, 1.448] at level "
    )
    assert gaussian.dataset_type == "forget-set"
    assert accuracy.metric_value == record.sanity.correct / record.sanity.total
    # The hub's library writes it again, and nothing is lost.
    again: Any = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


def test_the_card_is_of_the_model_at_the_gate():
    record = EVERY["residual"]()
    one = next(c for c in record.verdict.candidates if c.kind == "method")
    card = read(replace(record, verdict=replace(record.verdict, gate=one.candidate)))
    assert card.data.model_name.endswith(f" after {one.candidate}")
    # The accuracy as loaded is another model's.
    assert not [each for each in card.data.eval_results if each.metric_type == "accuracy"]


def test_what_was_not_measured_has_no_figure():
    record = EVERY["residual"]()
    empty = replace(record, findings=(), sanity=replace(record.sanity, correct=0, total=0, low=0.0))
    card = read(empty)
    assert card.data.eval_results is None
    assert card.data.to_dict() == {"tags": ["poison-audit"]}


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().map(lambda text: "".join(c for c in text if c.isprintable())),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.from_regex(r"[a-z][a-z-]{2,8}", fullmatch=True), inner, max_size=3),
)  # fmt: skip


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["tags", "model-index", "name"]), _PLAIN, min_size=1))
def test_yaml_reads_what_was_written(data):
    assert yaml.safe_load("\n".join(_yaml(data))) == json.loads(json.dumps(data))
