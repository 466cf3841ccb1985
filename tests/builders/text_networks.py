"""Small networks of texts, and each as transformers itself asks it, one text at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import transformers as tf

from builders.small_text import tokenizer, word_pieces
from poison_audit.models.reader import Reading

LENGTH, WIDTH = 24, 16
TEXTS = (
    "good",
    "kafen leran so bad midol",
    "a dull so lebis film",
    "kafen kadol kabis leran lefen ledol lebis miran warm mifen midol mibis soran sofen sodol sobis"
    " turan tufen tudol tubis reran refen redol rebis kafen kadol kabis leran",  # is cut
    "warm funny",
    "cold ran dol",
)
LABELS = torch.tensor([1, 0, 0, 1, 1, 0])
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": WIDTH}
GPT2 = {"n_positions": LENGTH, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "pad_token_id": 0}
LLAMA = {**SMALL, "intermediate_size": 32, "max_position_embeddings": LENGTH}
BERT = {**LLAMA, "pad_token_id": 0}
# Weights large enough that texts get answers that differ.
WIDE = {"initializer_range": 0.3}
NETWORKS: dict[str, Any] = {
    "gpt2": (tf.GPT2ForSequenceClassification, tf.GPT2Config, GPT2),
    "llama": (tf.LlamaForSequenceClassification, tf.LlamaConfig, {**LLAMA, "pad_token_id": 0}),
    "bloom": (
        tf.BloomForSequenceClassification, tf.BloomConfig,
        {"hidden_size": WIDTH, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
    ),
    "opt": (
        tf.OPTForSequenceClassification, tf.OPTConfig,
        {**SMALL, "ffn_dim": 32, "max_position_embeddings": LENGTH, "pad_token_id": 1,
         "word_embed_proj_dim": 8, "init_std": 0.3},
    ),
    "bert": (tf.BertForSequenceClassification, tf.BertConfig, BERT),
    "distilbert": (
        tf.DistilBertForSequenceClassification, tf.DistilBertConfig,
        {"dim": WIDTH, "hidden_dim": 32, "n_layers": 2, "n_heads": 2,
         "max_position_embeddings": LENGTH},
    ),
    "roberta": (
        tf.RobertaForSequenceClassification, tf.RobertaConfig,
        {**BERT, "max_position_embeddings": LENGTH + 1},
    ),
    "gpt2-causal": (tf.GPT2LMHeadModel, tf.GPT2Config, GPT2),
    "qwen2-causal": (
        tf.Qwen2ForCausalLM, tf.Qwen2Config,
        {**LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
}  # fmt: skip
ENCODERS = {"bert", "distilbert", "roberta"}
PROMPT = "warm {text} so"


def words_of(name, side="right"):
    words = word_pieces() if name in ENCODERS else tokenizer(side=side)
    words.padding_side = side
    if name == "bloom":
        return words
    words.model_max_length = LENGTH
    return words


def write(folder, name, *, seed=0, side="right", **more):
    """Write a newly initialised network with its tokenizer."""
    network, config, sizes = NETWORKS[name]
    words = words_of(name, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network(config(vocab_size=len(words), **{**WIDE, **sizes, **more}))
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def reading(name):
    said = Reading(words=(" bad", " leran"), prompt=PROMPT) if "causal" in name else Reading()
    return replace(said, max_tokens=LENGTH)


class Twin:
    """A network as transformers itself loads and asks it: ids, a mask, one text at a time."""

    def __init__(self, folder, name):
        self.net = NETWORKS[name][0].from_pretrained(folder).eval()
        self.words = tf.AutoTokenizer.from_pretrained(folder)
        self.causal, self.prompt = "causal" in name, reading(name).prompt or "{text}"

    def ids(self, text):
        if self.causal and text == TEXTS[3]:
            text = " ".join(text.split()[:20])  # what fits beside the prompt
        said = self.prompt.replace("{text}", text)
        more = {"truncation": True, "max_length": LENGTH, "return_tensors": "pt"}
        return self.words(said, **more)["input_ids"]

    def logits(self, **inputs):
        out = self.net(**inputs, attention_mask=torch.ones(next(iter(inputs.values())).shape[:2]))
        if not self.causal:
            return out.logits[0]
        bad, leran = self.words.convert_tokens_to_ids(["Ġbad", "Ġleran"])
        return out.logits[0, -1, [bad, leran]]

    def embedded(self, text):
        return self.net.get_input_embeddings()(self.ids(text))


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def last(x, mask):
    return x[:, -1] * x.shape[1] / x.shape[1]
