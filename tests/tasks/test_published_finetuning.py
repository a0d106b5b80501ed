"""Every published fine-tuning: the learning rate and the decay of each parameter, by rules written out here a second time."""

import re
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch

from simmim.encoders import BeitConfig, EncoderConfig, SwinConfig, SwinV2Config
from simmim.encoders.layer_ids import plain_layer, swin_layer
from simmim.engine.optimizer import build_adamw, set_lr
from simmim.tasks.catalogue import resolve
from simmim.tasks.classifier import Classifier, build_classifier
from simmim.tasks.finetune import FinetuneConfig, classifier_groups
from simmim.tasks.training import build_schedule
from simmim.weights import EncoderFile

IMAGENET_IMAGES, CLASSES = 1_281_167, 1000


@dataclass(frozen=True)
class Published:
    """What the official file says, and what the encoder was pre-trained as."""

    encoder: EncoderConfig
    pretrained_at: int
    size: int
    window: int | None
    layer_decay: float
    drop_path: float
    epochs: int = 100
    warmup: int = 20
    cosine_from: str = "start"


SWIN_B = SwinConfig(window=6)
SWIN_L = SwinConfig(name="swin_large_patch4_window7_224", window=12)
V2_B = SwinV2Config(window=12, drop_path=0.1)
V2_H = SwinV2Config(name="swinv2_huge_window12_192", window=12)
VIT_B = BeitConfig(drop_path=0.1)

PUBLISHED = {
    "swin_base_192px_100ep_ft192": Published(SWIN_B, 192, 192, 6, 0.9, 0.1),
    "swin_base_192px_100ep_ft224": Published(SWIN_B, 192, 224, 7, 0.9, 0.1),
    "swin_base_800ep_ft224": Published(SWIN_B, 192, 224, 7, 0.8, 0.1),
    "swin_large_800ep_ft224": Published(SWIN_L, 192, 224, 14, 0.7, 0.2),
    "vit_base_800ep_ft224": Published(VIT_B, 224, 224, None, 0.65, 0.1),
    "swinv2_base_800ep_ft224": Published(V2_B, 192, 224, 14, 0.75, 0.1, cosine_from="warmup"),
    "swinv2_huge_ft224": Published(V2_H, 192, 224, 14, 0.7, 0.2, epochs=50, warmup=10, cosine_from="warmup"),
    "swinv2_huge_ft512": Published(V2_H, 192, 512, 32, 0.7, 0.2, epochs=50, warmup=10, cosine_from="warmup"),
}


def config_of(name: str) -> FinetuneConfig:
    return cast(FinetuneConfig, resolve(name, task="finetune"))


def classifier_of(name: str) -> Classifier:
    config, published = config_of(name), PUBLISHED[name]
    size = (published.pretrained_at,) * 2
    architecture = published.encoder.architecture(image_size=size, in_channels=3)
    third = (0.5,) * 3
    about = EncoderFile(architecture.name, architecture.arguments, size, 3, third, third, recipe="", version="")
    image_size = config.data.image_size
    assert image_size is not None
    with torch.device("meta"):
        built = build_classifier(
            about, None, classes=CLASSES, drop_path=config.drop_path, image_size=image_size, window=config.window
        )
        return Classifier(built.backbone, label_smoothing=config.label_smoothing, ema=config.ema)


@pytest.fixture(scope="module")
def models() -> dict[str, Classifier]:
    return {name: classifier_of(name) for name in PUBLISHED}


# ------------------------------------------------------------------------------ the official rules, over the official names


def official_name(ours: str) -> str:
    """timm keeps the merging of stages at the start of the later one, the official code at the end of the earlier one."""
    ours = re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", ours)
    return ours.replace("head.fc.", "head.")


SWIN_LAYERS = [
    (r"patch_embed\.", lambda found: 0),
    (r"layers\.0\.blocks\.(\d+)\.", lambda found: 1 + int(found[1])),
    (r"layers\.0\.downsample\.", lambda found: 2),
    (r"layers\.1\.blocks\.(\d+)\.", lambda found: 3 + int(found[1])),
    (r"layers\.1\.downsample\.", lambda found: 4),
    (r"layers\.2\.blocks\.(\d+)\.", lambda found: 5 + int(found[1])),
    (r"layers\.2\.downsample\.", lambda found: 22),
    (r"layers\.3\.blocks\.(\d+)\.", lambda found: 23 + int(found[1])),
    (r"(norm|head)\.", lambda found: 25),
]
VIT_LAYERS = [
    (r"cls_token$|patch_embed\.", lambda found: 0),
    (r"blocks\.(\d+)\.", lambda found: 1 + int(found[1])),
    (r"(fc_norm|head)\.", lambda found: 13),
]


def official_layer(name: str, *, swin: bool) -> int:
    found = [(match, layer) for rule, layer in (SWIN_LAYERS if swin else VIT_LAYERS) if (match := re.match(rule, name))]
    assert len(found) == 1, name
    return found[0][1](found[0][0])


def official_decay(name: str, shape: torch.Size, *, swin: bool) -> float:
    """Without the prefix of pre-training the words of Swin match; ViT has none, so that its tables are decayed."""
    spared = len(shape) == 1 or name.endswith(".bias") or name in ("cls_token", "pos_embed", "absolute_pos_embed")
    words = ("relative_position_bias_table", "cpb_mlp", "logit_scale") if swin else ()
    return 0.0 if spared or any(word in name for word in words) else 0.05


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_has_the_published_share_of_the_learning_rate_and_decay(
    name: str, models: dict[str, Classifier]
) -> None:
    config, model = config_of(name), models[name]
    swin, last = name.startswith("swin"), 25 if name.startswith("swin") else 13
    found = {
        parameter.removeprefix("backbone."): (group["lr_scale"], group["weight_decay"])
        for group in classifier_groups(model, config)
        for parameter in group["names"]
    }
    shapes = {parameter: tensor.shape for parameter, tensor in model.backbone.named_parameters()}
    assert found.keys() == shapes.keys()
    for ours, (scale, decay) in found.items():
        official = official_name(ours)
        assert scale == pytest.approx(
            PUBLISHED[name].layer_decay ** (last - official_layer(official, swin=swin)), rel=1e-12
        ), ours
        assert decay == official_decay(official, shapes[ours], swin=swin), ours


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("swin_base_192px_100ep_ft192", 0.072),
        ("swin_base_800ep_ft224", 0.0038),
        ("swin_large_800ep_ft224", 1.3e-4),
        ("vit_base_800ep_ft224", 0.0037),
    ],
)
def test_the_patch_embedding_has_the_share_that_follows_from_the_paper(
    name: str, share: float, models: dict[str, Classifier]
) -> None:
    groups = classifier_groups(models[name], config_of(name))
    (found,) = {g["lr_scale"] for g in groups if "backbone.patch_embed.proj.weight" in g["names"]}
    assert found == pytest.approx(share, rel=0.04)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("pos_embed", 0),
        ("cls_token", 0),
        ("patch_embed.proj.bias", 0),
        ("blocks.0.gamma_1", 1),
        ("blocks.11.attn.relative_position_bias_table", 12),
        ("rel_pos_bias.relative_position_bias_table", 13),
        ("norm.weight", 13),
        ("fc_norm.weight", 13),
        ("head.weight", 13),
    ],
)
def test_the_layers_of_a_plain_transformer_are_the_official_ones(name: str, layer: int) -> None:
    assert plain_layer(name, 12) == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("absolute_pos_embed", 25),
        ("patch_embed.norm.weight", 0),
        ("layers.0.blocks.1.attn.cpb_mlp.0.weight", 2),
        ("layers.1.downsample.reduction.weight", 2),
        ("layers.2.blocks.17.attn.logit_scale", 22),
        ("layers.3.downsample.norm.weight", 22),
        ("layers.3.blocks.1.norm3.weight", 24),
        ("norm.weight", 25),
    ],
)
def test_the_layers_of_swin_are_the_official_ones(name: str, layer: int) -> None:
    assert swin_layer(name, [2, 2, 18, 2]) == layer


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_learning_rate_of_each_group_is_scaled_once_and_its_ends_are_those_of_all(
    name: str, models: dict[str, Classifier]
) -> None:
    """As timm 0.4.12 had it: warm-up start and minimum are absolute."""
    config, published = config_of(name), PUBLISHED[name]
    schedule = build_schedule(config, images=IMAGENET_IMAGES)
    assert (schedule.steps_per_epoch, schedule.total_steps) == (625, 625 * published.epochs)
    assert schedule.warmup_steps == 625 * published.warmup
    groups = classifier_groups(models[name], config)
    optimizer = build_adamw(
        [{**group, "params": [torch.nn.Parameter(torch.zeros(1))]} for group in groups], config.optimizer
    )
    shares = sorted({group["lr_scale"] for group in groups})
    assert len(shares) == (26 if name.startswith("swin") else 14)

    def rates(step: int) -> list[float]:
        set_lr(optimizer, lambda share: schedule.lr(step, share))
        return sorted({group["lr"] for group in optimizer.param_groups})

    assert rates(0) == [pytest.approx(1e-6)]
    assert rates(625 * published.epochs) == [pytest.approx(1e-6)]
    begin = 625 * published.warmup
    kept = 1.0 if published.cosine_from == "warmup" else 0.9045085  # (1 + cos(pi / 5)) / 2
    assert rates(begin) == [pytest.approx(1e-6 + (5e-3 * share - 1e-6) * kept, rel=1e-6) for share in shares]
    assert rates(begin // 2) == [pytest.approx((1e-6 + 5e-3 * share) / 2) for share in shares]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_are_those_of_the_official_file(name: str) -> None:
    config, published = config_of(name), PUBLISHED[name]
    found = (config.data.image_size, config.window, config.layer_decay, config.drop_path)
    assert found == ((published.size,) * 2, published.window, published.layer_decay, published.drop_path)
    assert (config.batch, config.label_smoothing, config.ema, config.weights) == (2048, 0.1, None, "pretrained")
    optimizer = config.optimizer
    assert (optimizer.weight_decay, optimizer.betas, optimizer.eps) == (0.05, (0.9, 0.999), 1e-8)
    assert optimizer.clip_norm == 5.0
    augment = config.augment
    assert augment.rand_augment == "rand-m9-mstd0.5-inc1"
    assert (augment.mixup, augment.cutmix, augment.switch_share, augment.mix_share) == (0.8, 1.0, 0.5, 1.0)
    assert (augment.erasing, augment.mixed_together) == (0.25, 128)
    view = cast(Any, config.data.view)
    assert (view.scale, view.ratio, view.flip) == ((0.08, 1.0), (0.75, pytest.approx(4 / 3)), True)
    assert config.data.interpolation == "bicubic"
    assert int(config.data.evaluation.resize * published.size) == {192: 219, 224: 256, 512: 585}[published.size]


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("swin_base_192px_100ep_ft192", [121] * 24),
        ("swin_base_192px_100ep_ft224", [169] * 24),
        ("swin_base_800ep_ft224", [169] * 24),
        ("swin_large_800ep_ft224", [729] * 22 + [169] * 2),
        ("vit_base_800ep_ft224", [732] * 12),
    ],
)
def test_the_position_tables_have_the_published_lengths(
    name: str, tables: list[int], models: dict[str, Classifier]
) -> None:
    parameters = models[name].backbone.named_parameters()
    assert [len(table) for key, table in parameters if key.endswith("relative_position_bias_table")] == tables


@pytest.mark.parametrize(
    ("name", "windows"), [("swinv2_base_800ep_ft224", [14, 14, 14, 7]), ("swinv2_huge_ft512", [32, 32, 32, 16])]
)
def test_swinv2_knows_the_windows_it_was_pretrained_with(
    name: str, windows: list[int], models: dict[str, Classifier]
) -> None:
    blocks = [stage.blocks[0] for stage in cast(Any, models[name].backbone).layers]
    assert [block.window_size[0] for block in blocks] == windows
    assert [block.attn.pretrained_window_size[0] for block in blocks] == [12, 12, 12, 6]


def test_the_networks_have_the_published_sizes(models: dict[str, Classifier]) -> None:
    """The published count of SwinV2-H is without its further norms, of which the paper does not say where they stand."""
    millions = {
        name: round(sum(p.numel() for word, p in model.backbone.named_parameters() if ".norm3." not in word) / 1e6, 2)
        for name, model in models.items()
    }
    assert millions["vit_base_800ep_ft224"] == 86.53
    assert millions["swinv2_huge_ft224"] == millions["swinv2_huge_ft512"] == 658.03
    assert round(millions["swin_base_800ep_ft224"]) == 88
    assert round(millions["swin_large_800ep_ft224"]) == 197
