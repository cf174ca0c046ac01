"""Networks of other packages than torchvision's classifiers: timm, transformers, segmentation, video, detection.

Each is built with random weights; a package that is not installed leaves its rows out of the tests.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.models import load_model
from core.models.huggingface import ImageClassifier


@dataclass(frozen=True)
class Other:
    """One row.

    Attributes:
        name: as `load_model` knows it, or package and network.
        package: that has to be installed.
        make: builds it.
        small: sides of images (or frames and sides of a film) that are enough to run every layer of it.
        native: sides that it was designed for.
        left: at most so many percent of its parameters are left at ratio 0.5.
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    small: tuple[int, ...] = (64, 64)
    native: tuple[int, ...] = (224, 224)
    left: float = 27.0

    def build(self, *, native: bool = False) -> nn.Module:
        """The network with random weights, in eval mode; the same one at every call."""
        del native
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().eval()

    def images(self, count: int = 2, *, native: bool = False) -> Tensor:
        """Random images (count, 3, side, side), or films (count, 3, frames, side, side)."""
        sides = self.native if native else self.small
        return torch.randn(count, 3, *sides, generator=torch.Generator().manual_seed(3))


def _timm(name: str, left: float = 27.0, side: int = 64) -> Other:
    def make() -> nn.Module:
        return load_model(f"timm:{name}", num_classes=10)

    return Other(f"timm:{name}", "timm", make, (side, side), left=left)


def _hugging_face(name: str, left: float = 27.0, **shape: Any) -> Other:
    def make() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name}Config")(num_labels=10, **shape)
        return ImageClassifier(getattr(transformers, f"{name}ForImageClassification")(config))

    side = shape.get("image_size", 64) if name == "ViT" else 64
    return Other(f"transformers {name}", "transformers", make, (side, side), (side, side), left)


def _segmentation(name: str) -> Other:
    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=10)

    return Other(f"torchvision {name}", "torchvision", make)


def _film() -> nn.Module:
    import torchvision

    return torchvision.models.video.r3d_18(weights=None, num_classes=10)


def _yolo(export: bool) -> Callable[[], nn.Module]:
    """A detector; without ``export``, its feature maps are part of its output, and so stay whole."""

    def make() -> nn.Module:
        with tempfile.TemporaryDirectory() as folder:  # where importing it writes its settings
            os.environ.update({"YOLO_CONFIG_DIR": folder, "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"})
            from ultralytics.nn.tasks import DetectionModel

            model: Any = DetectionModel("yolov8n.yaml", nc=10, verbose=False)
        model.model[-1].export = export
        return model

    return make


def _unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, classes=10)


OTHERS: tuple[Other, ...] = (
    _timm("resnet50"),
    _timm("efficientnet_b0"),
    _timm("tf_efficientnet_b0"),
    _timm("efficientnetv2_rw_t"),
    _timm("mobilenetv3_large_100"),
    _timm("mobilenetv4_conv_small"),
    _timm("mnasnet_100"),
    _timm("fbnetc_100"),
    _timm("regnety_004"),
    _timm("densenet121"),
    _timm("repvgg_a0"),
    _timm("mobileone_s0"),
    _timm("resnetv2_50"),
    _timm("seresnet50"),
    _timm("dla34"),
    _timm("hrnet_w18_small"),
    _timm("ghostnet_100"),
    _timm("repghostnet_050"),
    _timm("darknet53"),
    _timm("vovnet39a"),
    _timm("ese_vovnet19b_dw"),
    _timm("selecsls42b"),
    _timm("legacy_xception", side=96),
    _timm("inception_v4", side=96),
    _timm("inception_resnet_v2", 34, side=96),
    _timm("convnext_atto"),
    _timm("starnet_s1"),
    _timm("cspresnet50", 36),
    _timm("coatnet_nano_rw_224", 33, side=224),
    _timm("rexnet_100", 44),
    _timm("ecaresnet26t", 50),
    _timm("res2net50_26w_4s", 51),
    _timm("mixer_s16_224", 52, side=224),
    _timm("mixnet_s", 61),
    _timm("vit_tiny_patch16_224", 53, side=224),
    _hugging_face("ResNet", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
    _hugging_face("ConvNext", depths=[2, 2, 4, 2], hidden_sizes=[40, 80, 160, 320]),
    _hugging_face("MobileNetV2"),
    _hugging_face("RegNet", depths=[1, 2, 4, 1], hidden_sizes=[32, 64, 160, 384], groups_width=16),
    _hugging_face("EfficientNet", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224),
    _hugging_face("ViT", 55, hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768,
                  image_size=64),
    _segmentation("fcn_resnet50"),
    _segmentation("deeplabv3_mobilenet_v3_large"),
    _segmentation("lraspp_mobilenet_v3_large"),
    Other("torchvision r3d_18", "torchvision", _film, (8, 64, 64), (16, 112, 112)),
    Other("segmentation-models-pytorch Unet", "segmentation_models_pytorch", _unet),
    Other("ultralytics yolov8n", "ultralytics", _yolo(False), native=(640, 640), left=33),
    Other("ultralytics yolov8n, export", "ultralytics", _yolo(True), native=(640, 640)),
)  # fmt: skip
