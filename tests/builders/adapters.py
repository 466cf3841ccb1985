"""Small networks, each as a base, an adapter that PEFT trained on it, and what PEFT merges."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers as tf

from builders.small_text import tokenizer
from builders.text_folders import change
from builders.text_networks import NETWORKS, WIDE


def adapted(folder: Path, name: str, *, pretrained: bool = False, **lora: Any) -> Path:
    """Write `base`, `adapter` and `merged` of a network of texts.

    Args:
        pretrained: whether the base is the language model, and the adapter brings a head of three.
        lora: settings of the adapter.
    """
    words, (kind, config, own) = tokenizer(), NETWORKS[name]
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = config(vocab_size=len(words), **{**WIDE, **ends, **own})
        if pretrained:
            tf.AutoModelForCausalLM.from_config(made).save_pretrained(folder / "base")
            made = tf.AutoConfig.from_pretrained(folder / "base", num_labels=3)
            network = kind.from_pretrained(folder / "base", config=made)
        else:
            kind(made).save_pretrained(folder / "base")
            network = kind.from_pretrained(folder / "base")
        words.save_pretrained(folder / "base")
        task = "CAUSAL_LM" if name.endswith("causal") else "SEQ_CLS"
        both(folder, network, task_type=task, **lora)
    words.save_pretrained(folder / "merged")
    return folder


def both(folder: Path, network: Any, **lora: Any) -> Any:
    """Write an adapter, all that it trains moved at random; return what PEFT merges."""
    # What PEFT warns of, and transformers of what PEFT calls, is nothing to these tests.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(2)
        wrapped = peft.get_peft_model(network, peft.LoraConfig(init_lora_weights=False, **lora))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if parameter.requires_grad and "lora_" not in name:
                    parameter += 0.3 * torch.randn_like(parameter)
        wrapped.save_pretrained(folder / "adapter")
        merged: Any = wrapped.merge_and_unload()
    if (folder / "base").is_dir():
        change(folder / "adapter/adapter_config.json", base_model_name_or_path="base")
    if hasattr(merged, "save_pretrained"):
        merged.save_pretrained(folder / "merged")
    return merged
