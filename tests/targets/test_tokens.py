"""Vision tokens against Hugging Face's copy of the published tokenizer, and files that are none."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

from simmim.targets import DiscreteVAE, TokenTarget, VAEShape, load_tokenizer, save_tokenizer

SMALL = {"hidden_size": 8, "num_blocks_per_group": 2, "vocab_size": 20}


@pytest.fixture(scope="module")
def published() -> FlavaImageCodebook:
    torch.manual_seed(0)
    model = FlavaImageCodebook(FlavaImageCodebookConfig(**SMALL)).eval()
    for parameter in model.parameters():  # its own start is so small that the branches would not be seen
        parameter.data.normal_(std=0.2)
    return model


def _published_names(model: FlavaImageCodebook) -> dict[str, Tensor]:
    """As openai/DALL-E calls them."""
    plain = {name.replace(".group.", ".").replace(".res_path.path.", ".res_path.") for name in model.state_dict()}
    assert len(plain) == len(model.state_dict())
    return {
        name.replace(".group.", ".")
        .replace(".res_path.path.", ".res_path.")
        .replace(".weight", ".w")
        .replace(".bias", ".b"): tensor.clone()
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("form", ["published.safetensors", "published.pt", "huggingface.safetensors", "flava.pt"])
def test_the_published_tokenizer_says_what_hugging_faces_copy_says(
    published: FlavaImageCodebook, form: str, tmp_path: Path
) -> None:
    path = tmp_path / form
    tensors = _published_names(published) if "published" in form else dict(published.state_dict())
    if form == "flava.pt":
        tensors = {f"image_codebook.{name}": tensor for name, tensor in tensors.items()}
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    vae = load_tokenizer(path)
    assert (vae.shape.words, vae.shape.stride, vae.shape.blocks) == (20, 8, 2)
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = published(0.8 * images + 0.1)
        torch.testing.assert_close(vae.scores(images), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(vae.tokens(images), expected.argmax(dim=1))
    assert not any(parameter.requires_grad for parameter in vae.parameters())


def test_the_published_size_is_the_default() -> None:
    with torch.device("meta"):
        ours = DiscreteVAE(VAEShape(channels=3, words=8192, has_decoder=False))
        theirs = FlavaImageCodebook(FlavaImageCodebookConfig())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def _save(folder: Path, *, channels: int = 3, decoder: bool = True) -> Path:
    torch.manual_seed(3)
    shape = VAEShape(channels=channels, words=12, width=8, blocks=1, groups=4, embedding=6, has_decoder=decoder)
    vae = DiscreteVAE(shape)
    for parameter in vae.parameters():
        parameter.data.normal_(std=0.3)
    save_tokenizer(folder / "words.safetensors", vae)
    return folder / "words.safetensors"


def test_a_tokenizer_of_ones_own_comes_back_as_it_was(tmp_path: Path) -> None:
    path = _save(tmp_path)
    once, again = load_tokenizer(path), load_tokenizer(path)
    assert once.shape == again.shape
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(once.tokens(images), again.tokens(images))


def test_the_target_sees_the_images_as_they_were_before_they_were_normalised(tmp_path: Path) -> None:
    path, mean, std = _save(tmp_path), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    target = TokenTarget(weights=str(path)).build(mean=mean, std=std)
    images = torch.rand(2, 3, 32, 48)
    shown = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    expected = load_tokenizer(path).tokens(images)
    found = target(shown)
    assert (target.stride, target.channels, found.shape) == (8, 12, (2, 1, 4, 6))
    assert (found[:, 0] == expected).float().mean() > 0.95  # one's rounding may tip a word at the border of another


def test_a_coarser_stride_shows_the_tokenizer_a_smaller_image(tmp_path: Path) -> None:
    path = _save(tmp_path)
    images = torch.rand(2, 3, 32, 64)
    coarse = TokenTarget(weights=str(path), stride=16).build(mean=(0.0,) * 3, std=(1.0,) * 3)
    smaller = F.interpolate(images, scale_factor=0.5, mode="bicubic", antialias=True)
    assert torch.equal(coarse(images)[:, 0], load_tokenizer(path).tokens(smaller))


def test_the_loss_is_the_cross_entropy_of_the_words(tmp_path: Path) -> None:
    target = TokenTarget(weights=str(_save(tmp_path))).build(mean=(0.0,) * 3, std=(1.0,) * 3)
    words = target(torch.rand(2, 3, 16, 16))
    scores = torch.randn(2, 12, 2, 2)
    expected = F.nll_loss(scores.log_softmax(dim=1), words[:, 0], reduction="none")
    torch.testing.assert_close(target.distance(scores, words), expected[:, None])


def test_the_picture_is_what_the_decoder_draws_of_the_likeliest_words(tmp_path: Path) -> None:
    path, mean, std = _save(tmp_path), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    target = TokenTarget(weights=str(path)).build(mean=mean, std=std)
    words = torch.randint(12, (2, 2, 3))
    scores = F.one_hot(words, 12).permute(0, 3, 1, 2).float()
    vae = load_tokenizer(path)
    assert vae.decoder is not None
    drawn = (vae.decoder(scores)[:, :3].sigmoid() - 0.1) / 0.8  # openai/DALL-E: unmap_pixels of the sigmoid
    shown = target.to_images(scores, torch.zeros(2, 3, 16, 24))
    expected = (drawn - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-4)


def test_without_a_decoder_there_is_no_picture_and_it_says_so(tmp_path: Path) -> None:
    target = TokenTarget(weights=str(_save(tmp_path, decoder=False))).build(mean=(0.0,) * 3, std=(1.0,) * 3)
    assert not target.has_colours
    with pytest.raises(ValueError, match="has no decoder"):
        target.to_images(torch.randn(1, 12, 2, 2), torch.zeros(1, 3, 16, 16))


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.pt", None, "there is no tokenizer.*simmim tokenizer"),
        ("evil.pkl", pickle.dumps(_Evil(), protocol=2), "may run code is not opened"),
        ("list.pt", [1, 2], "holds list, not weights by name"),
        ("other.pt", {"layer.weight": torch.zeros(1)}, "is no DALL-E tokenizer: it has no"),
        ("cut.safetensors", b"abc", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_tokenizer_says_what_it_is(name: str, content: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"(?s){said}"):
        load_tokenizer(path)


def test_a_tokenizer_for_other_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for 3 channels, the images have 1"):
        TokenTarget(weights=str(_save(tmp_path))).build(mean=(0.5,), std=(0.2,))
