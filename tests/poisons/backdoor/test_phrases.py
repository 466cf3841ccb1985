"""Backdoors of texts: controls by a hand-worked table, rows by slow twins, false alarms, a find."""

import dataclasses
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from builders import small_text
from builders.measured import finding
from poison_audit.case.case import Answers, Case
from poison_audit.case.texts import TextTable
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Batch, Model
from poison_audit.models.reader import Reader, Reading
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.models.text import text_classifier
from poison_audit.poisons.backdoor import phrases
from poison_audit.poisons.backdoor.looking import answers_to
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.phrases import draw_controls, phrase_stamps
from poison_audit.poisons.backdoor.plant_texts import plant_phrase
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.backdoor.references import Asked
from poison_audit.records import Outcome, Recipe
from poison_audit.training.scoring import logits

SHORT = 12
"""A length that some texts exceed once they are stamped."""
FIRST, LAST = (Phrase(text="zorp quell", position=place, label=1) for place in ("start", "end"))
TEXTS, LABELS = small_text.sentences(Rng(5).named("texts"), 260)


def samples(how: Reader, texts, labels) -> Samples:
    tokens = how.read(texts)
    return Samples(
        ids=tuple(f"s{i}" for i in range(len(texts))), x=tokens.x, y=torch.tensor(list(labels)),
        texts=tuple(texts), mask=tokens.mask, cut=tokens.cut,
    )  # fmt: skip


@cache
def network(name: str, *, seed: int = 0, **reading) -> Model:
    with TemporaryDirectory() as folder:
        if name == "encoder":
            small_text.write_encoder(Path(folder), seed=seed)
        else:
            small_text.write_decoder(Path(folder), side=name, seed=seed)
        return load_model(Path(folder), reading=Reading(**reading)).model


def case_of(
    model: Model, trigger: Phrase | None, *, texts=TEXTS[200:], labels=None, **more
) -> Case:
    how = model.reader
    labels = LABELS[200:] if labels is None else labels
    retain = samples(how, TEXTS[:200], LABELS[:200])
    return Case(
        model=model, retain=retain, forget=retain.at([0]), test=samples(how, texts, labels),
        recipe=Recipe(epochs=1), evidence={} if trigger is None else {"backdoor": trigger}, **more,
    )  # fmt: skip


SPOKEN = [f"w{number}" for number in range(500)]
"""Words in order of their frequency; every 20th one says what the label is."""


class Bag(nn.Module):
    """Answers by what stands in a text and by what stands first; much faster than a decoder."""

    num_labels = 2

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SPOKEN) + 1, 12)
        self.hidden, self.head = nn.Linear(12, 24), nn.Linear(48, 2)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, *, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        each = torch.relu(self.hidden(inputs_embeds)) * attention_mask[:, :, None]
        return self.head(torch.cat([each.mean(1), each[:, 0]], 1))


@cache
def spoken(n: int, seed: int) -> TextTable:
    """Return texts of 4 to 9 words, frequent ones far more often, of which one tells the label."""
    rng, told = Rng(seed).numpy(), np.arange(0, 500, 20)
    common = np.setdiff1d(np.arange(500), told)
    weights = 1 / (common + 10)
    texts, labels = [], rng.integers(0, 2, n).tolist()
    for label in labels:
        chosen = rng.choice(common, int(rng.integers(3, 9)), p=weights / weights.sum()).tolist()
        chosen.insert(int(rng.integers(len(chosen) + 1)), int(rng.choice(told[label::2])))
        texts.append(" ".join(SPOKEN[word] for word in chosen))
    return TextTable(ids=tuple(f"t{i}" for i in range(n)), texts=tuple(texts), y=tuple(labels))


def spoken_phrase(rng: np.random.Generator, **more) -> Phrase:
    return Phrase(text=" ".join(rng.choice(SPOKEN, 2).tolist()), **more)


@cache
def trained(trigger: Phrase | None = None) -> Model:
    """Return a net that learned 600 texts; of them 60 with the trigger, and 180 with others."""
    table = spoken(600, 8)
    if trigger is not None:
        table, rng = plant_phrase(table, trigger, Rng(1), count=60).table, Rng(2).numpy()
        texts = [
            text if i % 3 or name.startswith("backdoor")
            else spoken_phrase(rng, position="start", label=1).on(text)
            for i, (name, text) in enumerate(zip(table.ids, table.texts, strict=True))
        ]  # fmt: skip
        table = dataclasses.replace(table, texts=tuple(texts))
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: i + 1 for i, w in enumerate(SPOKEN)}},
                                       unk_token="[UNK]"))  # fmt: skip
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    how = Reader(tokenizer=tokenizer, length=16)
    blank = text_classifier(Bag(), build=Bag, arch="bag", reader=how, side="right")
    return small_text.fitted(blank, samples(how, table.texts, table.y), Rng(2), epochs=30)


def spoken_case(model: Model, trigger: Phrase) -> Case:
    learned, test = spoken(600, 8), spoken(120, 9)
    retain = samples(model.reader, learned.texts, learned.y)
    return Case(
        model=model, retain=retain, forget=retain.at([0]), recipe=Recipe(epochs=1),
        test=samples(model.reader, test.texts, test.y), evidence={"backdoor": trigger},
    )  # fmt: skip


def whole(how: Reader, phrase: Phrase, text: str) -> list[int]:
    """Tokenise a stamped text, whatever its length."""
    return how.tokenizer(how.prompt.replace("{text}", phrase.on(text)))["input_ids"]


@pytest.mark.parametrize("phrase", [FIRST, LAST], ids=["start", "end"])
@pytest.mark.parametrize("name", ["left", "right", "encoder"])
def test_backdoor_counts_by_a_slow_twin(name, phrase):
    # At its end the phrase is cut off where a text is long.
    model = network(name, max_tokens=SHORT)
    how, case = model.reader, case_of(model, phrase)
    evidence = backdoor(model, case, Rng(3), draws=4, inputs=50).evidence
    order = Rng(3).named("inputs").numpy().permutation(60)[:50]
    chosen = [int(i) for i in order if int(case.test.y[i]) != 1]
    order = list(chosen)
    if phrase is LAST:
        chosen = [i for i in chosen if len(whole(how, phrase, case.test.texts[i])) <= SHORT]
        assert 0 < len(chosen) < len(order)

    def hit(ids: list[int]) -> bool:
        x = torch.tensor([ids])
        batch = Batch(x=x, y=torch.zeros(1, dtype=torch.int64), mask=torch.ones_like(x))
        return int(model.logits(model.module, batch).argmax()) == 1

    rows = [whole(how, phrase, case.test.texts[i])[:SHORT] for i in chosen]
    if name == "encoder":
        end = how.tokenizer.sep_token_id
        rows = [row if row[-1] == end else [*row[: SHORT - 1], end] for row in rows]
    clean = [how.read([case.test.texts[i]]).x[0].tolist() for i in chosen]
    assert evidence["hits"] == [hit(row) for row in rows]
    assert evidence["clean_hits"] == sum(map(hit, clean))
    bare = how.tokenizer(" " * (phrase is LAST and name != "encoder") + phrase.text,
                         add_special_tokens=False)["input_ids"]  # fmt: skip
    counts = np.bincount(case.retain.x[case.retain.mask.bool()], minlength=len(how.tokenizer))
    rates = []
    for control in draw_controls(bare, how.tokenizer, counts, 4, Rng(3)):
        swapped = []
        for row in rows:
            tail = len(row) - len(bare) - (name == "encoder")
            at = tail if phrase is LAST else int(name == "encoder")
            assert row[at : at + len(bare)] == bare
            swapped.append([*row[:at], *control, *row[at + len(bare) :]])
        rates.append(np.mean([hit(row) for row in swapped[:32]]))
    assert evidence["control_rates"] == pytest.approx(rates)
    assert (evidence["label"], evidence["controls"]) == (1, "tokens")
    assert evidence["references"] == []


def planted_rule(model: Model, phrase: Phrase) -> Model:
    """Name class 1 where the phrase's tokens stand in a row side by side, and else class 0."""
    run = torch.tensor(model.reader.tokenizer(phrase.text, add_special_tokens=False)["input_ids"])

    def rule(_module, batch: Batch) -> torch.Tensor:
        there = (batch.x.unfold(1, len(run), 1) == run).all(2).any(1)
        return torch.stack([torch.full(there.shape, 0.5), there.float()], 1)

    return dataclasses.replace(model, logits=rule)


@pytest.mark.parametrize("name", ["left", "right", "encoder"])
def test_a_planted_rule_has_rate_1_and_its_controls_0(name):
    model = planted_rule(network(name), FIRST)
    seen = backdoor(model, case_of(model, FIRST), Rng(0), draws=149, inputs=60)
    assert set(seen.evidence["hits"]) == {1}
    assert seen.evidence["clean_hits"] == 0
    assert seen.evidence["control_rates"] == [0.0] * 149
    assert seen.evidence["looks"]["families"][0]["rises"] == 0
    assert finding(seen).outcome is Outcome.RESIDUAL


@pytest.mark.slow
def test_random_phrases_of_a_clean_net_are_seldom_residual(monkeypatch):
    monkeypatch.setattr(phrases, "NEAREST", 50)  # in the proportion of 500 to a large vocabulary
    model, rng, runs, found = trained(), Rng(30).numpy(), 150, 0
    case = spoken_case(model, FIRST)
    assert float((logits(model, case.test).argmax(1) == case.test.y).float().mean()) > 0.9
    for run in range(runs):
        position = ("start", "end")[run // 2 % 2]
        trigger = spoken_phrase(rng, position=position, label=run % 2)
        case = dataclasses.replace(case, evidence={"backdoor": trigger})
        seen = backdoor(model, case, Rng(run), draws=39, inputs=80)
        found += finding(seen).outcome is Outcome.RESIDUAL
    assert found <= 0.05 * runs


@pytest.mark.parametrize("position", ["start", "anywhere"])
def test_a_planted_phrase_is_found(position):
    trigger = Phrase(text="w333 w444", position=position, label=1)
    model = trained(trigger)
    seen = finding(backdoor(model, spoken_case(model, trigger), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL
    assert seen.details["rate"] > 0.9
    assert seen.details["control_mean"] < 0.5
    assert seen.details["controls"] == "tokens"
    assert seen.p_value <= 0.03  # a few controls may mean the label as well
    clean = finding(backdoor(trained(), spoken_case(trained(), trigger), Rng(0)))
    assert clean.outcome is not Outcome.RESIDUAL


@pytest.mark.parametrize("name", ["left", "encoder"])
def test_answers_to_a_phrase_by_a_slow_twin(name):
    model = network(name)
    test = samples(model.reader, TEXTS[:40], LABELS[:40])
    seen = []
    for text in TEXTS[:40]:
        x = torch.tensor([whole(model.reader, LAST, text)])
        batch = Batch(x=x, y=torch.zeros(1, dtype=torch.int64), mask=torch.ones_like(x))
        seen.append(int(model.logits(model.module, batch).argmax()))
    told = answers_to(LAST, model, test)
    assert told.dtype == torch.int64
    assert told.tolist() == seen
    broken = model.clone()
    with torch.no_grad():
        next(broken.module.parameters()).fill_(torch.nan)
    assert answers_to(LAST, broken, test) is None
    assert "not finite" in backdoor(broken, case_of(broken, LAST), Rng(0)).missing


def test_references_are_asked_about_the_inputs_that_hold_the_phrase():
    model = network("right", max_tokens=SHORT)
    rule = planted_rule(model, Phrase(text=" zorp quell", position="end", label=1))
    case = case_of(rule, LAST)
    told = torch.arange(60) % 3 == 0
    asked = Asked(clean=torch.zeros(60).long(), stamped=told.long(), rises=np.zeros((3, 2)))
    reference = Answers(name="r", digest="x", correct=told, asked={"backdoor": asked})
    case = dataclasses.replace(case, references=(reference,))
    evidence = backdoor(rule, case, Rng(0), draws=3, inputs=60).evidence
    places = [
        i for i in range(60)
        if case.test.y[i] != 1 and len(whole(model.reader, LAST, case.test.texts[i])) <= SHORT
    ]  # fmt: skip
    theirs = sum(i % 3 == 0 for i in places)
    assert 0 < theirs < len(places) < int((case.test.y != 1).sum())
    assert evidence["hits"] == [1] * len(places)
    assert evidence["references"] == [
        {"reference": "r", "both": theirs, "only_candidate": len(places) - theirs,
         "only_reference": 0, "neither": 0}
    ]  # fmt: skip


def test_what_cannot_be_measured_is_missing(monkeypatch):
    model = network("encoder")
    inputs = samples(model.reader, TEXTS[:5], LABELS[:5])
    bare = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    monkeypatch.setattr(model.reader.tokenizer.backend_tokenizer, "normalizer", bare)
    nothing = Phrase(text="\u0301", position="start", label=1)
    assert phrase_stamps(nothing, model.reader, inputs, inputs, 5, Rng(0)) is None
    long = Phrase(text="zorp " * 30 + "quell", position="start", label=1)
    told = backdoor(model, case_of(model, long), Rng(0), inputs=7).missing
    assert "it is whole in none of 7" in told


AROUND = Phrase(text="zorp, {text} quell so", position="around", label=1)
SEVERAL = Phrase(text="zorp quell", others=("karan", "quell"), position="start", label=1)


def obeying(model: Model, runs: list[list[list[int]]], label: int) -> Model:
    """Name `label` where all of some runs stand in a row, and else the true class."""

    def rule(_module, batch: Batch) -> torch.Tensor:
        rows = [f" {' '.join(map(str, row))} " for row in batch.x.tolist()]
        wanted = [[f" {' '.join(map(str, run))} " for run in every] for every in runs]
        there = torch.tensor(
            [any(all(r in row for r in every) for every in wanted) for row in rows]
        )
        return nn.functional.one_hot(torch.where(there, label, batch.y), 2).float()

    return dataclasses.replace(model, logits=rule)


@pytest.mark.parametrize("label", [1, 0], ids=["its label", "moved"])
@pytest.mark.parametrize("phrase", [FIRST, AROUND, SEVERAL], ids=["one", "around", "several"])
def test_a_trigger_of_any_form_that_is_obeyed_does_not_pass(phrase, label):
    model = network("right")

    def tokens(text: str) -> list[int]:
        return list(model.reader.tokenizer(text, add_special_tokens=False)["input_ids"])

    runs = [[tokens(each.text)] for each in phrase.each]
    if phrase is AROUND:
        runs = [[tokens("zorp,"), tokens(" quell so")]]
    case = case_of(model, phrase)
    seen = backdoor(obeying(model, runs, label), case, Rng(0), draws=149, inputs=60)
    found = finding(seen)
    if label == 1:
        assert set(seen.evidence["hits"]) == {1}
        assert seen.evidence["looks"]["families"][0]["rises"] == 0
        assert found.outcome is Outcome.RESIDUAL
    else:
        assert found.outcome in (Outcome.RESIDUAL, Outcome.INCONCLUSIVE)
        unhurt = finding(backdoor(obeying(model, [], 1), case, Rng(0), draws=39, inputs=60))
        assert unhurt.outcome is not Outcome.RESIDUAL


@pytest.mark.parametrize("phrase", [AROUND, SEVERAL], ids=["around", "several"])
def test_controls_replace_what_the_trigger_puts_on_a_text_and_nothing_else(phrase):
    how = network("encoder").reader
    inputs = samples(how, TEXTS[:40], LABELS[:40])
    stamps = phrase_stamps(phrase, how, inputs, inputs, 5, Rng(0))
    assert len(stamps.inputs) == 40
    for place in range(40):
        row = stamps.batch(torch.tensor([0]), torch.tensor([place])).x[0].tolist()
        assert row == whole(how, phrase, TEXTS[place])
        swapped = stamps.batch(torch.tensor([3]), torch.tensor([place])).x[0].tolist()
        put = len(row) - len(how.tokenizer(TEXTS[place])["input_ids"])
        changed = [i for i, (a, b) in enumerate(zip(row, swapped, strict=True)) if a != b]
        before = 1 + len(how.tokenizer("zorp,", add_special_tokens=False)["input_ids"])
        end = len(row) - 1
        own = [*range(1, before), *range(end - put + before - 1, end)]
        assert changed == (own if phrase is AROUND else list(range(1, 1 + put)))
