import pytest

from simmim.encoders import BeitConfig, EncoderConfig, SwinConfig, SwinV2Config, TimmConfig, ViTConfig
from simmim.units import Size

VIT = ViTConfig(name="vit_tiny_patch16_224", patch_size=16, embed_dim=24, depth=1, num_heads=2)
SWIN = {"patch_size": 4, "embed_dim": 16, "depths": (1, 1, 1), "num_heads": (1, 2, 4), "window": 2}


@pytest.mark.parametrize(
    ("config", "size", "said"),
    [
        (VIT, (40, 32), "the image height 40 px is not a multiple of the model patch 16 px; nearest: 32 or 48"),
        (VIT, (32, 72), "the image width 72 px is not a multiple of the model patch 16 px; nearest: 64 or 80"),
        (
            BeitConfig(embed_dim=24, depth=1, num_heads=2),
            (32, 40),
            "width 40 px is not a multiple of the model patch 16 px",
        ),
        (
            SwinConfig(**SWIN),
            (40, 32),
            "height 40 px is not a multiple of the encoder's stride 16 px; nearest: 32 or 48",
        ),
        (SwinV2Config(**SWIN), (32, 40), "width 40 px is not a multiple of the encoder's stride 16 px"),
        (TimmConfig(name="deit3_small_patch16_224", arguments={"depth": 1}), (32, 40), "nearest: 32 or 48"),
        (TimmConfig(name="deit3_small_patch16_224", arguments={"depth": 1}), (40, 40), "nearest: 32 or 48"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_does(
    config: EncoderConfig, size: Size, said: str
) -> None:
    with pytest.raises(ValueError, match="is not a multiple of") as caught:
        config.build(image_size=size, in_channels=3)
    assert said in str(caught.value)


def test_the_nearest_timm_model_is_suggested() -> None:
    with pytest.raises(
        ValueError, match=r"timm has no model 'vit_tyni_patch16_224'; did you mean 'vit_tiny_patch16_224'"
    ):
        ViTConfig(name="vit_tyni_patch16_224").build(image_size=(32, 32), in_channels=3)


def test_an_argument_that_timm_does_not_know_is_told() -> None:
    config = TimmConfig(name="deit3_small_patch16_224", arguments={"fingers": 5})
    with pytest.raises(ValueError, match=r"timm cannot build deit3_small_patch16_224.*fingers"):
        config.build(image_size=(32, 32), in_channels=3)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_backbone_without_a_patch_embedding_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TimmConfig(name=name).build(image_size=(64, 64), in_channels=3)


@pytest.mark.parametrize(
    "config",
    [
        ViTConfig(name="beit_base_patch16_224", depth=1),
        BeitConfig(name="vit_tiny_patch16_224", depth=1),
        BeitConfig(name="resnet18"),
        SwinConfig(name="vit_tiny_patch16_224", depths=(1,)),
    ],
    ids=lambda config: f"{config.kind} {config.name}",
)
def test_a_timm_model_of_another_family_is_refused_in_words(config: EncoderConfig) -> None:
    with pytest.raises(ValueError, match=config.name):
        config.build(image_size=(32, 32), in_channels=3)


@pytest.mark.parametrize("drop_path", [-0.1, 1.0, 1.5])
def test_a_drop_path_that_is_no_chance_is_refused(drop_path: float) -> None:
    with pytest.raises(ValueError, match="drop_path"):
        ViTConfig(drop_path=drop_path)
