"""The network behind vision tokens: a discrete variational autoencoder of the published DALL-E shape, in any size.

    image ── conv 7x7 ──► groups of residual blocks, halved between them ──► a score for each word ── argmax ──► token
    token ── embed ──► groups of residual blocks, doubled between them ──► image

(Published: openai/DALL-E, encoder.py and decoder.py; width 256, two blocks in each of four groups, 8192 words.)
"""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from simmim.tensors import read_tensors, read_words, write_tensors

_WIDTHS = (1, 2, 4, 8)  # of the published four groups
_DALLE_OFFSET, _DALLE_SCALE = -0.125, 1.25  # 0.8 x + 0.1 is (x - offset) / scale


@dataclass(frozen=True)
class VAEShape:
    """What a tokenizer is, beside its weights."""

    channels: int
    words: int
    """Size of the vocabulary."""
    width: int = 256
    """Channels of the first group."""
    blocks: int = 2
    """Residual blocks of each group."""
    groups: int = 4
    """The picture is halved between them, so the stride is 2 ** (groups - 1)."""
    embedding: int = 128
    """Channels a token is embedded in."""
    mean: tuple[float, ...] = ()
    """What is subtracted of each channel of images from 0 to 1, before all else; the published offset if empty."""
    std: tuple[float, ...] = ()
    """What they are divided by then."""
    squashed: bool = True
    """Whether the decoder's answer goes through a sigmoid, as the published one does, with half of its channels left out."""
    has_decoder: bool = True

    @property
    def stride(self) -> int:
        """Pixels a side of one token."""
        return 2 ** (self.groups - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of each group."""
        return [self.width * min(2**group, _WIDTHS[-1]) for group in range(self.groups)]


class _Block(nn.Module):
    """A residual block whose branch is weighed down by the square of the network's depth."""

    def __init__(self, inside: int, outside: int, *, layers: int, kernels: tuple[int, int, int, int]) -> None:
        super().__init__()
        hidden = outside // 4
        self.gain = 1 / layers**2
        self.id_path = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        widths = (inside, hidden, hidden, hidden, outside)
        self.res_path = nn.Sequential()
        for number, kernel in enumerate(kernels):
            self.res_path.add_module(f"relu_{number + 1}", nn.ReLU())
            convolution = nn.Conv2d(widths[number], widths[number + 1], kernel, padding=kernel // 2)
            self.res_path.add_module(f"conv_{number + 1}", convolution)

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


def _groups(
    first: int, widths: list[int], shape: VAEShape, *, kernels: tuple[int, int, int, int], between: dict[str, nn.Module]
) -> nn.Sequential:
    """The groups, with what lies between two of them at the end of each but the last."""
    blocks = nn.Sequential()
    inside = first
    for number, outside in enumerate(widths, start=1):
        group = nn.Sequential()
        for block in range(shape.blocks):
            made = _Block(inside, outside, layers=shape.groups * shape.blocks, kernels=kernels)
            group.add_module(f"block_{block + 1}", made)
            inside = outside
        if number < len(widths):
            for name, module in between.items():
                group.add_module(name, module)
        blocks.add_module(f"group_{number}", group)
    return blocks


class DiscreteVAE(nn.Module):
    """Images to tokens and back.

    Args:
        shape: its sizes; the weights start at random.
    """

    def __init__(self, shape: VAEShape) -> None:
        super().__init__()
        self.shape = shape
        widths = shape.widths
        self.encoder = nn.Sequential()
        self.encoder.add_module("input", nn.Conv2d(shape.channels, shape.width, 7, padding=3))
        down = _groups(shape.width, widths, shape, kernels=(3, 3, 3, 1), between={"pool": nn.MaxPool2d(2)})
        for name, group in down.named_children():
            self.encoder.add_module(name, group)
        self.encoder.add_module("output", _answer(widths[-1], shape.words))
        self.decoder: nn.Sequential | None = None
        if shape.has_decoder:
            self.decoder = nn.Sequential()
            self.decoder.add_module("input", nn.Conv2d(shape.words, shape.embedding, 1))
            up = _groups(
                shape.embedding,
                widths[::-1],
                shape,
                kernels=(1, 3, 3, 3),
                between={"upsample": nn.Upsample(scale_factor=2)},
            )
            for name, group in up.named_children():
                self.decoder.add_module(name, group)
            self.decoder.add_module("output", _answer(shape.width, shape.channels * (2 if shape.squashed else 1)))

    def scores(self, images: Tensor) -> Tensor:
        """A score for each word (batch, words, rows, columns), of images (batch, channels, height, width) from 0 to 1."""
        mean, std = self._affine(images)
        return self.encoder((images - mean) / std)

    def tokens(self, images: Tensor) -> Tensor:
        """The likeliest word of each place (batch, rows, columns)."""
        return self.scores(images).argmax(dim=1)

    def draw(self, words: Tensor) -> Tensor:
        """Images from 0 to 1 of weights over words (batch, words, rows, columns): one-hot ones, or softer while it learns.

        Raises:
            ValueError: where the tokenizer has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this tokenizer has no decoder, so its tokens cannot be turned back into colours")
        answer: Tensor = self.decoder(words)
        if self.shape.squashed:
            answer = answer[:, : self.shape.channels].sigmoid()
        mean, std = self._affine(answer)
        return answer * std + mean

    def draw_tokens(self, tokens: Tensor) -> Tensor:
        """Images from 0 to 1 of tokens (batch, rows, columns)."""
        return self.draw(F.one_hot(tokens, self.shape.words).permute(0, 3, 1, 2).float())

    def _affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        channels = self.shape.channels
        mean = self.shape.mean or (_DALLE_OFFSET,) * channels
        std = self.shape.std or (_DALLE_SCALE,) * channels
        return like.new_tensor(mean).view(-1, 1, 1), like.new_tensor(std).view(-1, 1, 1)


def _answer(inside: int, outside: int) -> nn.Sequential:
    answer = nn.Sequential()
    answer.add_module("relu", nn.ReLU())
    answer.add_module("conv", nn.Conv2d(inside, outside, 1))
    return answer


# ------------------------------------------------------------------------------------------------------------------- files


def save_tokenizer(path: Path, vae: DiscreteVAE) -> None:
    """Write a tokenizer, weights and sizes, as one safetensors file."""
    write_tensors(path, vae.state_dict(), {"tokenizer": json.dumps(asdict(vae.shape), sort_keys=True)})


def load_tokenizer(path: Path) -> DiscreteVAE:
    """Read a tokenizer: one of `simmim tokenizer`, or the published encoder's weights.

    The published encoder is taken as a safetensors file or a state dict with its own names or with those of Hugging Face's
    FlavaImageCodebook; a decoder beside it, under `decoder.`, is taken along.

    Raises:
        ValueError: where the file is not there, or holds no tokenizer; with what it takes to make it one.
    """
    if not path.is_file():
        raise ValueError(f"there is no tokenizer {str(path)!r}; make one with: simmim tokenizer DATA --out {path}")
    with torch.device("cpu"):  # its weights are real even where a model is only planned, on the meta device
        return _read_tokenizer(path).eval().requires_grad_(False)


def _read_tokenizer(path: Path) -> DiscreteVAE:
    words = _words(path)
    if "tokenizer" in words:
        described = json.loads(words["tokenizer"])
        described.update(mean=tuple(described["mean"]), std=tuple(described["std"]))
        vae = DiscreteVAE(VAEShape(**described))
        vae.load_state_dict(read_tensors(path).tensors)
    else:
        tensors = _plain_names(_foreign(path))
        vae = DiscreteVAE(_shape_of(tensors, path))
        try:
            vae.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{path} is no DALL-E tokenizer: {error}") from error
    return vae


def _words(path: Path) -> dict[str, str]:
    return read_words(path) if path.suffix == ".safetensors" else {}


def _foreign(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a file of weights alone, and a pickle that may run code is not opened. With the package that "
            "wrote it, save its weights: safetensors.torch.save_file(torch.load(FILE).state_dict(), 'encoder.safetensors')"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, not weights by name")
    return cast("dict[str, Tensor]", found)


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published names and Hugging Face's as ours: `encoder.group_1.block_1.res_path.conv_1.weight`."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        side = "decoder" if re.match(r"(\w+\.)*decoder\.", name) else "encoder"
        inner = name.rpartition("blocks.")[2] if "blocks." in name else re.sub(r"^(encoder|decoder)\.", "", name)
        inner = inner.replace(".group.", ".").replace(".res_path.path.", ".res_path.")
        inner = re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", inner))
        plain[f"{side}.{inner}"] = tensor.float()
    return plain


def _shape_of(tensors: Mapping[str, Tensor], path: Path) -> VAEShape:
    try:
        first, last = tensors["encoder.input.weight"], tensors["encoder.output.conv.weight"]
    except KeyError as error:
        raise ValueError(
            f"{path} is no DALL-E tokenizer: it has no {error}; it begins with {', '.join(list(tensors)[:3])}"
        ) from None
    blocks = {name.split(".")[2] for name in tensors if name.startswith("encoder.group_1.block_")}
    groups = {name.split(".")[1] for name in tensors if name.startswith("encoder.group_")}
    shape = VAEShape(
        channels=first.shape[1], words=last.shape[0], width=first.shape[0], blocks=len(blocks), groups=len(groups)
    )
    entrance = tensors.get("decoder.input.weight")
    if entrance is None:
        return replace(shape, has_decoder=False)
    return replace(shape, embedding=entrance.shape[0])
