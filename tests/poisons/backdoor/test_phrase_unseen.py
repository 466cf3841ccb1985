"""A phrase of which a tokenizer makes nothing: the model cannot obey it, whatever it learned."""

import json

import pytest
from tokenizers import normalizers

from builders.small_text import write_decoder, write_encoder, write_rows
from builders.text_folders import change
from poison_audit.case.files import Files
from poison_audit.case.sources import Sources
from poison_audit.case.texts import read_texts
from poison_audit.errors import Problems
from poison_audit.models.checkpoint import load_model
from poison_audit.poisons.backdoor.trial import backdoor_evidence

ROWS = [(f"the film {word} so", number % 2) for number, word in enumerate(("bad", "good") * 3)]
TOLD = "as it reads it without: no token is it. Is it the tokenizer"


def told(folder, phrase, position="start"):
    write_rows(folder / "t.csv", ["text", "label"], ROWS)
    trigger = {"version": 1, "label": 1, "phrase": phrase, "position": position}
    (folder / "trigger.json").write_text(json.dumps(trigger))
    loaded, problems = load_model(folder / "m"), Problems()
    sources = Sources(model=folder, forget=None, train=None, test=None,
                      evidence={"trigger": folder / "trigger.json"})  # fmt: skip
    train = read_texts(folder / "t.csv", reader=loaded.model.reader)
    found = backdoor_evidence(Files(sources=sources, loaded=loaded, train=train), "cpu", problems)
    return found, [str(problem).replace(f"{folder}/", "") for problem in problems]


@pytest.mark.parametrize("position", ["start", "end", "anywhere"])
def test_invisible_letters_that_a_tokenizer_drops(tmp_path, position):
    write_encoder(tmp_path / "m")
    # As BERT's own does with control and zero-width letters.
    file = tmp_path / "m/tokenizer.json"
    change(file, normalizer=json.loads(normalizers.BertNormalizer(clean_text=True).__getstate__()))
    found, said = told(tmp_path, "\u200b", position)
    assert found.planted is None
    (line,) = said
    assert line.startswith(r"trigger.json phrase: the tokenizer reads a text with '\u200b' as it")
    assert TOLD in line
    found, said = told(tmp_path, "zorp", position)
    assert (found.planted.position, said) == (position, [])


def test_byte_level_tokenizers_see_every_letter(tmp_path):
    write_decoder(tmp_path / "m")
    for phrase in ("\u200b", "\u202e", "\U0001f469\u200d\U0001f4bb", "\x07"):
        found, said = told(tmp_path, phrase)
        assert (found.planted.text, said) == (phrase, [])
