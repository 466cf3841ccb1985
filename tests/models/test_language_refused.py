"""What of a folder of a language model is refused, and in which words."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers as tf
from tokenizers import processors

from builders.small_text import LENGTH, WIDTH, tokenizer, word_pieces, write_decoder, write_encoder
from builders.text_folders import WORDS, ask, change, refused, save
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.reader import Reading

SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 16, "max_position_embeddings": LENGTH}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_decoder(folder / "decoder", classes=3)
    write_encoder(folder / "encoder")
    gpt2 = {"n_positions": LENGTH, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
    save(folder / "causal", tf.GPT2LMHeadModel, tf.GPT2Config, tokenizer(), **gpt2)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "made")


# What is refused: the tokenizer


def test_no_tokenizer(folder):
    for file in (folder / "decoder").glob("*token*"):
        file.unlink()
    (said,) = refused(folder / "decoder")
    assert said.startswith(f"{folder / 'decoder'}: holds a language model but no tokenizer. Put it")


@pytest.mark.parametrize("kind", ["decoder", "encoder", "causal"])
def test_a_tokenizer_that_is_larger_than_the_embedding(folder, kind):
    words = tf.AutoTokenizer.from_pretrained(folder / kind)
    rows = len(words)
    words.add_tokens(["<one>", "<two>"])
    words.save_pretrained(folder / kind)
    (said,) = refused(folder / kind, WORDS if kind == "causal" else Reading())
    assert said == (
        f"{folder / kind}: the tokenizer has {rows + 2} tokens, the network embeddings for {rows}. "
        "Is it the tokenizer of this checkpoint?"
    )


def test_padding_that_the_network_has_no_row_for(tmp_path):
    words = tokenizer()
    write_llama(tmp_path, LENGTH, words)
    words.add_special_tokens({"eos_token": "<new>"})
    words.save_pretrained(tmp_path)
    (said,) = refused(tmp_path)
    assert "the tokenizer has 331 tokens, the network embeddings for 330" in said


def test_a_hole_in_the_vocabulary_counts(folder):
    file = folder / "decoder/tokenizer.json"
    told = json.loads(file.read_text())
    names = {number: name for name, number in told["model"]["vocab"].items()}
    told["model"]["vocab"][names[300]] = 4000
    file.write_text(json.dumps(told))
    (said,) = refused(folder / "decoder")
    assert "the tokenizer has 4001 tokens, the network embeddings for 330" in said


def test_an_embedding_may_have_more_rows(folder):
    words = tokenizer(vocabulary=300)
    words.save_pretrained(folder / "decoder")
    assert ask(load_model(folder / "decoder").model).shape == (3, 3)


def ending(words):
    """Let a tokenizer put its end of text behind each text."""
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return words


@pytest.mark.parametrize("network", [tf.LlamaForSequenceClassification, tf.LlamaForCausalLM])
def test_padding_is_a_token_that_no_text_ends_with(tmp_path, network):
    save(tmp_path, network, tf.LlamaConfig, ending(tokenizer()), eos_token_id=0, **SMALL)
    said = WORDS if network is tf.LlamaForCausalLM else Reading()
    model = load_model(tmp_path, reading=said).model
    assert model.module.config.pad_token_id == 1
    theirs = network.from_pretrained(tmp_path)  # whose padding is not set: it looks at the end
    with torch.no_grad():
        ids = torch.tensor([[*tokenizer()("so bad")["input_ids"], 0]])
        out = theirs(ids).logits
    words = tokenizer().convert_tokens_to_ids(["Ġbad", "Ġleran"])
    expected = out[0] if out.ndim == 2 else out[0, -1, words]
    torch.testing.assert_close(ask(model, ("so bad",))[0], expected, rtol=1e-5, atol=1e-6)


def test_a_network_that_takes_the_end_of_a_text_for_padding(tmp_path):
    # By ids it answers before the end, by embeddings at it.
    words = ending(tokenizer())
    network = tf.LlamaForSequenceClassification
    save(tmp_path, network, tf.LlamaConfig, words, pad_token_id=0, **SMALL)
    (said,) = refused(tmp_path)
    assert said == (
        f"{tmp_path}: answers a text otherwise when it stands in a batch, whichever side is "
        "padded. This kind of network is not supported."
    )


# What is refused: the reading


def test_everything_that_is_said_wrongly_is_said_at_once(folder):
    change(folder / "decoder/config.json", id2label={"0": "a", "1": "a", "2": "b"})
    said = refused(folder / "decoder", Reading(max_tokens=LENGTH + 1, prompt="{text} or {text}"))
    assert said == [
        f"{folder / 'decoder/config.json'}: id2label does not give each class a name of its own: "
        '{0: \'a\', 1: \'a\', 2: \'b\'}. Spell it {"0": "bad", "1": "good"}.',
        "--prompt: holds {text} 2 times: '{text} or {text}'. Say once where the text is to stand.",
        f"--max-tokens: must be at least 2 and at most the {LENGTH} that the model takes, got "
        f"{LENGTH + 1}.",
    ]


@pytest.mark.parametrize("names", [{"1": "a", "2": "b"}, {"0": "a", "2": "b"}])
def test_classes_without_a_name(folder, names):
    change(folder / "encoder/config.json", id2label=names)
    assert "does not give each class a name" in refused(folder / "encoder")[0]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"prompt": "so"}, "--prompt: holds {text} 0 times: 'so'. Say once where"),
        ({"prompt": ""}, "--prompt: holds {text} 0 times: ''"),
        ({"max_tokens": 1}, "--max-tokens: must be at least 2 and at most"),
        ({"max_tokens": 0}, "--max-tokens: must be at least 2"),
        ({"max_tokens": -5}, "--max-tokens: must be at least 2"),
        (
            {"prompt": "so bad so bad {text} so", "max_tokens": 5},
            "--prompt: the prompt alone has 6 tokens, and an input holds 5. Shorten it, or give",
        ),
        ({"words": (" bad", " leran")}, "--label-words: are for causal language models"),
    ],
)
def test_readings_that_cannot_be(folder, said, what):
    (line,) = refused(folder / "decoder", Reading(**said))
    assert line.startswith(what)


def test_special_tokens_leave_room_for_a_text(folder):
    (said,) = refused(folder / "encoder", Reading(max_tokens=2))  # [CLS] and [SEP]
    assert said.startswith("--prompt: the prompt alone has 2 tokens, and an input holds 2.")
    assert load_model(folder / "encoder", reading=Reading(max_tokens=3)).model.reader.length == 3


def write_llama(folder, positions, words):
    told = {**SMALL, "max_position_embeddings": positions}
    return save(folder, tf.LlamaForSequenceClassification, tf.LlamaConfig, words, **told)


def test_how_much_an_input_holds_is_asked_for(tmp_path):
    words = tokenizer()
    words.model_max_length = 10**30
    write_llama(tmp_path, 131_072, words)
    (said,) = refused(tmp_path)
    assert said == (
        f"{tmp_path}: an input may hold 131,072 tokens, and how many it is to hold is not said. "
        "Give it by --max-tokens or [model] max_tokens in audit.toml."
    )
    assert load_model(tmp_path, reading=Reading(max_tokens=40)).model.reader.length == 40
    change(tmp_path / "config.json", max_position_embeddings=-1)
    (said,) = refused(tmp_path)
    assert said.startswith(f"{tmp_path}: how many tokens an input holds is not stated. Give it by")


def test_more_than_the_network_has_positions_for(tmp_path):
    # RoBERTa counts its positions from 2, so that its config says two more than it takes.
    words = word_pieces()
    words.model_max_length = 10**30
    network, told = tf.RobertaForSequenceClassification, {**SMALL, "pad_token_id": 1}
    save(tmp_path, network, tf.RobertaConfig, words, **told)
    (said,) = refused(tmp_path)
    assert said.startswith(f"{tmp_path}: does not take an input of {LENGTH} tokens (index ")
    assert said.endswith("Give fewer by --max-tokens or [model] max_tokens.")
    reading = Reading(max_tokens=LENGTH - 2)
    assert load_model(tmp_path, reading=reading).model.reader.length == LENGTH - 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (None, "is a causal language model, and the words that stand for its classes are not"),
        ((), "is a causal language model, and the words that stand for its classes are not given"),
        ((" bad",), "--label-words: only ' bad'. Give one for each class."),
        (("", " bad"), "--label-words: '' is no word that the tokenizer knows."),
        ((" warm", " war"), "' warm', ' war' do not differ in their first token. Choose words"),
        ((" bad", " bad"), "' bad', ' bad' do not differ in their first token"),
        ((" so", "so"), "' so', 'so' differ in nothing but space. Choose words that do."),
    ],
)
def test_label_words_that_cannot_be(folder, words, what):
    (line,) = refused(folder / "causal", Reading(words=words))
    assert what in line
    if not words:
        assert 'Give one a class by --label-words " bad, good" or [model] label_words' in line


def test_words_that_the_tokenizer_does_not_know(tmp_path):
    words = word_pieces()
    save(tmp_path, tf.LlamaForCausalLM, tf.LlamaConfig, words, **SMALL)
    said = refused(tmp_path, Reading(words=("좋다", "bad", "나쁘다")))
    assert said == [
        f"--label-words: {word!r} is no word that the tokenizer knows."
        for word in ("좋다", "나쁘다")
    ]


# What is refused: the network


def t5(folder, **more):
    told = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    words = tokenizer()
    save(folder, tf.T5ForSequenceClassification, tf.T5Config, words, **told, **more)
    return folder


def test_t5_is_refused_with_a_sentence(tmp_path):
    said = refused(t5(tmp_path / "a", decoder_start_token_id=0, eos_token_id=1))
    said += refused(t5(tmp_path / "b"))
    assert len(said) == 2
    for line in said:
        assert line.endswith("This kind of network is not supported.")


def test_a_network_without_a_table_of_embeddings(tmp_path):
    told = {**SMALL, "num_hash_functions": 2, "num_hash_buckets": 8, "local_transformer_stride": 8,
            "downsampling_rate": 2}  # fmt: skip
    save(tmp_path, tf.CanineForSequenceClassification, tf.CanineConfig, tokenizer(), **told)
    (said,) = refused(tmp_path)
    assert said.startswith(f"{tmp_path}: has no table of token embeddings, where noise could be")


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "a quantised network"),
        ({"problem_type": "multi_label_classification"}, "gives a text several labels at once"),
        ({"model_type": "nobody-knows"}, "transformers cannot read it"),
        ({"n_embd": "many"}, "transformers cannot read it .*n_embd"),
        ({"n_head": 3}, r"describes no classifier of texts that can be built"),
        ({"activation_function": "nothing"}, "describes no classifier of texts"),
        ({"n_positions": 4}, "tensors have another shape: transformer.wpe.weight"),
    ],
)
def test_configurations_that_cannot_be(folder, told, what):
    change(folder / "decoder/config.json", **told)
    with pytest.raises(InputError, match=what):
        load_model(
            folder / "decoder", reading=Reading(max_tokens=4 if "n_positions" in told else 9)
        )


def test_padding_beyond_the_vocabulary(tmp_path):
    write_llama(tmp_path, LENGTH, tokenizer())
    change(tmp_path / "config.json", pad_token_id=330)
    (said,) = refused(tmp_path)
    assert "describes no classifier of texts that can be built (Padding_idx must be within" in said


def test_one_output_is_no_classifier(tmp_path):
    write_encoder(tmp_path, classes=1)
    (said,) = refused(tmp_path)
    assert said == (
        f"{tmp_path}: the network has 1 output; a classifier has one for each class. Give it two "
        "outputs."
    )


def test_answers_that_are_not_finite(folder):
    net = tf.GPT2ForSequenceClassification.from_pretrained(folder / "decoder")
    with torch.no_grad():
        net.score.weight[:] = 3e38
    net.save_pretrained(folder / "decoder")
    (said,) = refused(folder / "decoder")
    assert "with logits that are not finite. Is the checkpoint damaged?" in said


def test_a_normalisation_is_for_pictures(folder):
    half = ((0.5,), (0.5,))
    (said,) = refused(folder / "decoder", normalize=half)
    assert said == "--normalize: is for pictures, and this model reads texts. Leave it out."
