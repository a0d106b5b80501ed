from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from reference.loss import mean_of_cells, official_loss, strided_loss
from simmim.encoders import EncoderConfig, SwinConfig, ViTConfig
from simmim.heads import LinearHeadConfig
from simmim.model import Scored, SimMIM
from simmim.targets import PixelTarget
from simmim.units import Size

VIT = ViTConfig(name="vit_tiny_patch16_224", patch_size=8, embed_dim=24, depth=2, num_heads=2)
SWIN = SwinConfig(patch_size=4, embed_dim=16, depths=(1, 1, 1), num_heads=(1, 2, 4), window=3)  # stride 16
BACKBONES = pytest.mark.parametrize("backbone", [VIT, SWIN], ids=["vit", "swin"])


def model_of(
    backbone: EncoderConfig, size: Size = (48, 96), channels: int = 3, scored: Scored = "hidden", **target: Any
) -> SimMIM:
    torch.manual_seed(0)
    encoder = backbone.build(image_size=size, in_channels=channels)
    asked = PixelTarget(**target).build(mean=(0.0,) * channels, std=(1.0,) * channels)
    return SimMIM(encoder=encoder, head=LinearHeadConfig(), target=asked, scored=scored).eval()


def batch_for(model: SimMIM, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Images, and masks that hide another number of tokens in each of them."""
    generator = torch.Generator().manual_seed(1)
    encoder = model.encoder
    images = torch.randn(batch, encoder.in_channels, *encoder.image_size, generator=generator)
    noise = torch.rand(batch, *(side // encoder.patch_size for side in encoder.image_size), generator=generator)
    return images, noise < torch.tensor([0.2, 0.6, 0.9])[:batch, None, None]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user meets, who runs without the checks of shape annotations."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# --------------------------------------------------------------------------------------------------------------- the loss


@BACKBONES
@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("distance", ["l1", "l2", "smooth_l1"])
def test_the_loss_is_the_official_formula(backbone: EncoderConfig, channels: int, distance: str) -> None:
    model = model_of(backbone, channels=channels, distance=distance)
    images, mask = batch_for(model)
    said = model(images, mask)
    patch = model.encoder.patch_size
    expected = official_loss(images.double(), said.prediction.double(), mask, patch_size=patch, error=distance)
    assert said.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@BACKBONES
def test_everywhere_is_the_official_formula_under_a_mask_of_ones(backbone: EncoderConfig) -> None:
    model = model_of(backbone, scored="everywhere")
    images, mask = batch_for(model)
    said = model(images, mask)
    ones = torch.ones_like(mask)
    expected = official_loss(images.double(), said.prediction.double(), ones, patch_size=model.encoder.patch_size)
    assert said.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    hidden = model_of(backbone)(images, mask)
    assert torch.equal(said.prediction, hidden.prediction)  # what the encoder sees is the same
    assert said.loss.item() != pytest.approx(hidden.loss.item(), rel=1e-4)


@BACKBONES
@pytest.mark.parametrize("stride", [2, 3, 4, 6, 8, 12, 16, 24, 48])
@pytest.mark.parametrize("scored", ["hidden", "everywhere"])
def test_a_strided_target_is_compared_cell_by_cell(backbone: EncoderConfig, stride: int, scored: Scored) -> None:
    model = model_of(backbone, stride=stride, scored=scored)
    images, mask = batch_for(model)
    said = model(images, mask)
    assert said.prediction.shape == said.target.shape == (3, 3, 48 // stride, 96 // stride)
    counted = mask if scored == "hidden" else torch.ones_like(mask)
    expected = strided_loss(
        images, said.prediction.detach(), counted, patch_size=model.encoder.patch_size, stride=stride
    )
    assert said.loss.item() == pytest.approx(expected, rel=1e-5)


@BACKBONES
def test_a_target_of_stride_32_is_compared_cell_by_cell(backbone: EncoderConfig) -> None:
    model = model_of(backbone, size=(96, 96), stride=32)
    images, mask = batch_for(model)
    said = model(images, mask)
    expected = strided_loss(images, said.prediction.detach(), mask, patch_size=model.encoder.patch_size, stride=32)
    assert said.loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_target_coarser_than_the_features_takes_the_mean_of_their_answers() -> None:
    fine, coarse = model_of(VIT, stride=8), model_of(VIT, stride=24)
    coarse.load_state_dict(fine.state_dict())
    images, mask = batch_for(fine)
    expected = mean_of_cells(fine(images, mask).prediction.detach().double().numpy(), 3)
    assert torch.allclose(coarse(images, mask).prediction.double(), torch.from_numpy(expected), atol=1e-5)


def test_the_share_of_a_cell_is_the_part_of_it_that_is_hidden() -> None:
    model = model_of(VIT, stride=16)
    mask = torch.zeros(1, 6, 12, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 2, 2] = mask[0, 2, 3] = mask[0, 3, 2] = True
    expected = torch.zeros(1, 3, 6)
    expected[0, 0, 0], expected[0, 1, 1] = 1 / 4, 3 / 4
    assert torch.equal(model.score_map(mask), expected)


def test_the_loss_with_nothing_hidden_is_nothing() -> None:
    model = model_of(VIT)
    images, mask = batch_for(model)
    assert model(images, torch.zeros_like(mask)).loss.item() == 0


def test_the_loss_is_float32_under_autocast() -> None:
    model = model_of(VIT)
    images, mask = batch_for(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said = model(images, mask)
    assert said.prediction.dtype == torch.bfloat16
    assert said.loss.dtype == torch.float32
    expected = official_loss(images.double(), said.prediction.double(), mask, patch_size=8)
    assert said.loss.item() == pytest.approx(expected.item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------------- what may influence


@BACKBONES
@pytest.mark.parametrize("scored", ["hidden", "everywhere"])
def test_visible_places_count_only_where_everything_is_scored(backbone: EncoderConfig, scored: Scored) -> None:
    model = model_of(backbone, scored=scored)
    images, mask = batch_for(model)
    said = model(images, mask)
    patch = model.encoder.patch_size
    visible = ~mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    for prediction, target in (
        (said.prediction + 5 * visible, said.target),
        (said.prediction, said.target - 5 * visible),
    ):
        assert torch.equal(model.compare(prediction, target, mask), said.loss) == (scored == "hidden")
    hidden = ~visible
    assert model.compare(said.prediction + 5 * hidden, said.target, mask) > said.loss + 1


@BACKBONES
def test_what_is_hidden_has_no_influence_on_the_prediction(backbone: EncoderConfig) -> None:
    model = model_of(backbone)
    images, mask = batch_for(model)
    patch = model.encoder.patch_size
    hidden = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    other = torch.where(hidden, torch.full_like(images, 7.0), images)
    assert torch.equal(model(other, mask).prediction, model(images, mask).prediction)
    assert not torch.equal(model(images + 1.0 * ~hidden, mask).prediction, model(images, mask).prediction)


@BACKBONES
@pytest.mark.parametrize("scored", ["hidden", "everywhere"])
def test_the_mask_token_learns_where_something_is_hidden_and_only_there(
    backbone: EncoderConfig, scored: Scored
) -> None:
    model = model_of(backbone, scored=scored)
    images, mask = batch_for(model)
    for masks, learns in ((mask, True), (torch.zeros_like(mask), False)):
        model.zero_grad()
        model(images, masks).loss.backward()
        assert model.mask_token.grad is not None
        assert bool(model.mask_token.grad.abs().max() > 0) == learns


@BACKBONES
def test_the_mask_token_lies_exactly_at_the_hidden_places(backbone: EncoderConfig) -> None:
    model = model_of(backbone)
    images, mask = batch_for(model)
    tokens = model.encoder.embed(images)
    hidden = model.hide(tokens, mask)
    for place in mask.nonzero():
        assert torch.equal(hidden[tuple(place)], model.mask_token[0, 0])
    assert torch.equal(hidden[~mask], tokens[~mask])
    assert 0 < mask.sum() < mask.numel()


def test_the_mask_token_is_one_vector_that_starts_small() -> None:
    torch.manual_seed(0)
    wide = ViTConfig(name="vit_tiny_patch16_224", embed_dim=768, depth=1, num_heads=2)
    token = SimMIM(
        encoder=wide.build(image_size=(32, 32), in_channels=3),
        head=LinearHeadConfig(),
        target=PixelTarget().build(mean=(0.0,) * 3, std=(1.0,) * 3),
    ).mask_token
    assert token.shape == (1, 1, 768)
    assert token.std().item() == pytest.approx(0.02, rel=0.1)


# --------------------------------------------------------------------------------------------------------------- pictures


@BACKBONES
@pytest.mark.parametrize("stride", [1, 4, 16])
def test_a_reconstruction_keeps_every_visible_pixel(backbone: EncoderConfig, stride: int) -> None:
    model = model_of(backbone, stride=stride)
    images, mask = batch_for(model)
    with torch.no_grad():
        shown, prediction = model.reconstruct(images, mask), model(images, mask).prediction
    assert shown.shape == images.shape
    patch = model.encoder.patch_size
    for image, row, column in torch.cartesian_prod(torch.arange(3), torch.arange(0, 48, 5), torch.arange(0, 96, 7)):
        hidden = mask[image, row // patch, column // patch]
        expected = prediction[image, :, row // stride, column // stride] if hidden else images[image, :, row, column]
        assert torch.equal(shown[image, :, row, column], expected)


# ------------------------------------------------------------------------------------------------- masks as others write them


@pytest.mark.parametrize(
    "backbone", [VIT, VIT.model_copy(update={"visible_blocks": 1}), SWIN], ids=["vit", "few", "swin"]
)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.float32])
def test_a_mask_of_zeros_and_ones_is_one_of_false_and_true(backbone: EncoderConfig, kind: torch.dtype) -> None:
    model = model_of(backbone)
    images, mask = batch_for(model)
    numbers = mask.to(kind)
    assert torch.equal(model.features(images, numbers), model.features(images, mask))
    assert torch.equal(model(images, numbers).loss, model(images, mask).loss)
    assert torch.equal(model.reconstruct(images, numbers), model.reconstruct(images, mask))


@BACKBONES
def test_a_mask_may_have_one_value_for_several_tokens(backbone: EncoderConfig) -> None:
    """As the paper draws masks: cells of 16 px, of 2x2 or 4x4 tokens."""
    model = model_of(backbone)
    images, cells = batch_for(model)[0], torch.rand(3, 3, 6) < 0.5
    each = 16 // model.encoder.patch_size
    mask = torch.from_numpy(np.kron(cells.numpy(), np.ones((1, each, each), dtype=bool)))
    assert torch.equal(model(images, cells).loss, model(images, mask).loss)
    assert torch.equal(model.features(images, cells), model.features(images, mask))
    assert torch.equal(model.reconstruct(images, cells), model.reconstruct(images, mask))


# ----------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.usefixtures("unchecked")
def test_a_mask_of_another_shape_is_refused() -> None:
    model = model_of(VIT)
    images, mask = batch_for(model)
    with pytest.raises(ValueError, match=r"mask is \(3, 12, 6\), the tokens are \(3, 6, 12\).*model patch of 8 px"):
        model(images, mask.transpose(1, 2))
    with pytest.raises(ValueError, match=r"mask is \(2, 6, 12\)"):
        model(images, mask[:2])


def test_the_tests_check_the_annotations_of_shapes() -> None:
    model = model_of(VIT)
    images, mask = batch_for(model)
    with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
        model.hide(model.encoder.embed(images), mask.float())


@BACKBONES
def test_images_of_another_size_are_refused(backbone: EncoderConfig) -> None:
    model = model_of(backbone)
    images, mask = batch_for(model)
    with pytest.raises(
        ValueError, match="images have 3 channels of 96x48 px, this encoder was built for 3 channels of 48x96"
    ):
        model(images.transpose(2, 3), mask)


def test_a_stride_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(
        ValueError, match="height 48 px is not a multiple of the target's stride 32 px; nearest: 32 or 64"
    ):
        model_of(VIT, stride=32)
    with pytest.raises(
        ValueError, match="width 96 px is not a multiple of the target's stride 36 px; nearest: 72 or 108"
    ):
        model_of(VIT, size=(72, 96), stride=36)
