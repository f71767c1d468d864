"""The networks on which exactness is measured: torchvision's families, and some of timm and transformers.

Nothing is downloaded: weights are random (see `tests.oracle.randomize`). Convolutional networks get images of
128 pixels instead of 224, which changes no group and saves time; those whose size is fixed get their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.torchvision_ops import declare


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        name: "library/model".
        build: Makes it, with random weights.
        inputs: Makes a batch of one.
        quick: True if it belongs to the quick selection.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor | dict[str, Any]]
    quick: bool = field(default=False)


def _image(size: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _torchvision(name: str, size: int = 128, quick: bool = False, **options: Any) -> Network:
    def build() -> nn.Module:
        declare()
        models = importlib.import_module("torchvision.models")
        home = models.segmentation if hasattr(models.segmentation, name) else models
        model: nn.Module = getattr(home, name)(weights=None, **options)
        return model

    return Network(f"torchvision/{name}", build, _image(size), quick)


def _timm(name: str, size: int = 128, quick: bool = False, **options: Any) -> Network:
    def build() -> nn.Module:
        declare()
        model: nn.Module = importlib.import_module("timm").create_model(name, pretrained=False, **options)
        return model

    return Network(f"timm/{name}", build, _image(size), quick)


def _transformers(
    name: str, model: str, options: dict[str, Any], inputs: Callable[[], Any], quick: bool = False
) -> Network:
    def build() -> nn.Module:
        declare()
        library = importlib.import_module("transformers")
        config_class = getattr(library, model).config_class
        network: nn.Module = getattr(library, model)(config_class(**options))
        return network

    return Network(f"transformers/{name}", build, inputs, quick)


def _pixels(size: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"pixel_values": _image(size)()}


def _words(vocabulary: int) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "input_ids": torch.arange(24).reshape(2, 12) * 7 % vocabulary,
        "attention_mask": torch.tensor([[1] * 12, [1] * 9 + [0] * 3]),
    }


# Backbones must not be downloaded either; training-only heads do not run in eval mode, so they are left out.
_NO_BACKBONE = {"weights_backbone": None}
_TEXT = {"vocab_size": 200, "num_labels": 3, "max_position_embeddings": 64}
_SMALL_BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}

NETWORKS: tuple[Network, ...] = (
    _torchvision("alexnet"),
    _torchvision("vgg11"),
    _torchvision("vgg16_bn"),
    _torchvision("resnet18", quick=True),
    _torchvision("resnet50"),
    _torchvision("resnet101"),
    _torchvision("resnext50_32x4d"),
    _torchvision("resnext101_32x8d"),
    _torchvision("wide_resnet50_2"),
    _torchvision("densenet121"),
    _torchvision("densenet201"),
    _torchvision("googlenet", aux_logits=False, init_weights=False),
    _torchvision("inception_v3", 299, aux_logits=False, init_weights=False),
    _torchvision("squeezenet1_0"),
    _torchvision("squeezenet1_1", quick=True),
    _torchvision("shufflenet_v2_x0_5", quick=True),
    _torchvision("shufflenet_v2_x2_0"),
    _torchvision("mobilenet_v2"),
    _torchvision("mobilenet_v3_small", quick=True),
    _torchvision("mobilenet_v3_large"),
    _torchvision("mnasnet0_5"),
    _torchvision("mnasnet1_3"),
    _torchvision("efficientnet_b0"),
    _torchvision("efficientnet_b4"),
    _torchvision("efficientnet_v2_s"),
    _torchvision("efficientnet_v2_m"),
    _torchvision("regnet_y_400mf"),
    _torchvision("regnet_x_8gf"),
    _torchvision("convnext_tiny"),
    _torchvision("convnext_base"),
    _torchvision("vit_b_32", 224),
    _torchvision("vit_b_16", 224),
    _torchvision("swin_t", 224),
    _torchvision("swin_b", 224),
    _torchvision("swin_v2_t", 256),
    _torchvision("swin_v2_s", 256),
    _torchvision("maxvit_t", 224),
    _torchvision("deeplabv3_resnet50", **_NO_BACKBONE),
    _torchvision("deeplabv3_mobilenet_v3_large", **_NO_BACKBONE),
    _torchvision("fcn_resnet50", **_NO_BACKBONE),
    _torchvision("lraspp_mobilenet_v3_large", **_NO_BACKBONE),
    _timm("res2net50_26w_4s"),
    _timm("mixnet_s"),
    _timm("cspdarknet53"),
    _timm("mobilevit_s", 256),
    _timm("vit_tiny_patch16_224", 224, quick=True),
    _timm("convnextv2_atto"),
    _timm("levit_128s", 224),
    _timm("efficientformer_l1", 224),
    _timm("resnetv2_50x1_bit"),
    _timm("ghostnet_100"),
    _timm("coat_lite_tiny", 224),
    _timm("pvt_v2_b0", 224),
    _transformers(
        "vit",
        "ViTForImageClassification",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "image_size": 32,
            "patch_size": 8,
        },
        _pixels(32),
    ),
    _transformers(
        "swin",
        "SwinForImageClassification",
        {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 24,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        _pixels(64),
    ),
    _transformers(
        "convnext",
        "ConvNextForImageClassification",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]},
        _pixels(64),
    ),
    _transformers(
        "segformer",
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32},
        _pixels(64),
    ),
    _transformers(
        "mobilevit",
        "MobileViTForImageClassification",
        {"image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 12, 16, 24, 32, 40, 64]},
        _pixels(64),
    ),
    _transformers("bert", "BertForSequenceClassification", {**_TEXT, **_SMALL_BERT}, _words(200)),
    _transformers(
        "distilbert",
        "DistilBertForSequenceClassification",
        {**_TEXT, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128},
        _words(200),
    ),
)
