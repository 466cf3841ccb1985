"""A first sample is put to the network: whatever its code raises or returns is said in words."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from poison_audit.models.fit import refusal
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Batch

X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Answering(nn.Module):
    """A user's own network, which does as it likes."""

    def __init__(self, answer):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.answer = answer

    def forward(self, x):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def asked(module):
    model = image_classifier(module, build=lambda: module, arch="factory:net:make", classes=3)
    return refusal(model, Batch(X, torch.tensor([0])))


def test_a_network_that_answers_is_let_through():
    assert asked(Answering(torch.zeros(1, 3))) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore"),
         "(mat1 and mat2 shapes cannot be multiplied)"),
        (ValueError("Size (8*8) doesn't match."), "(ValueError: Size (8*8) doesn't match)"),
        (AssertionError("Wrong image height!"), "(AssertionError: Wrong image height!)"),
        (TypeError("no text"), "(TypeError: no text)"),
        (KeyError("pixels"), "(KeyError: 'pixels')"),
        (IndexError("dim 4"), "(IndexError: dim 4)"),
        (NotImplementedError(), "NotImplementedError"),
        (AttributeError("dim"), "(AttributeError: dim)"),
        (ZeroDivisionError("by zero"), "(ZeroDivisionError: by zero)"),
    ],
)  # fmt: skip
def test_whatever_it_raises_is_said(error, reason):
    what, fix = asked(Answering(error))
    assert what.startswith("the model does not accept samples of shape (3, 8, 8) (")
    assert reason in what
    assert "\n" not in what
    assert fix == "Give samples of the shape that factory:net:make was trained on"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_lack_of_memory_is_not_the_samples_fault(error):
    with pytest.raises(type(error)):
        asked(Answering(error))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [((torch.zeros(1, 3), torch.zeros(1, 3)), "tuple"), ({"logits": torch.zeros(1, 3)}, "dict"),
     (None, "NoneType")],
)  # fmt: skip
def test_an_answer_must_be_a_tensor(answer, kind):
    what, fix = asked(Answering(answer))
    assert what == f"the model answers with {kind}, not with one tensor of logits"
    assert "forward returns the logits alone" in fix


def test_an_answer_must_have_one_logit_a_class():
    assert asked(Answering(torch.zeros(1, 4)))[1] == "Expected 3, one a class"
    assert asked(Answering(torch.zeros(3)))[0].endswith("with () logits")


def test_a_torchvision_vit_names_its_size():
    vit = VisionTransformer(image_size=16, patch_size=8, num_layers=1, num_heads=1, hidden_dim=4,
                            mlp_dim=4, num_classes=3)  # fmt: skip
    what, fix = asked(vit)
    assert "(3, 8, 8) (AssertionError: " in what
    assert fix.startswith("Give pictures of 16x16, as training did")


def test_a_vit_of_transformers_names_its_size():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=4, image_size=16, patch_size=8, num_labels=3
    )
    what, fix = asked(transformers.ViTForImageClassification(config))
    assert "(3, 8, 8) (ValueError: " in what
    assert fix.startswith("Give pictures of 16x16, as training did")
