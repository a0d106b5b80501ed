"""A Swin transformer run backwards, the paper's heaviest heads (table 2).

    features ── project ──► blocks ── expand x2 ──► blocks ── ... ──► norm ── expand xN ── project ──► prediction

No code was published. Widths, depths and expansions here are inferred: they are the mirrored encoder, and give the published
numbers of parameters to 0.1 million for Swin-B at 192 px.
"""

from typing import Any, Literal, cast

from pydantic import Field
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from simmim.config import Part
from simmim.shapes import Features, Prediction

_SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (768, (2, 6, 2, 2), (24, 12, 6, 3)),
    "base": (1024, (2, 18, 2, 2), (32, 16, 8, 4)),
}
_EXPANSIONS = 3  # doublings between the four stages


class InverseSwinHeadConfig(Part, frozen=True):
    """An inverse Swin of one of the paper's two sizes, or of one's own widths."""

    kind: Literal["inverse_swin"] = "inverse_swin"
    size: Literal["tiny", "base"] = "tiny"
    """inverse Swin-T or inverse Swin-B."""
    width: int | None = Field(default=None, gt=0)
    """Channels of the first stage, halved at each of the next three; as the size says if not given."""
    depths: tuple[int, int, int, int] | None = None
    """Blocks of each stage; as the size says if not given."""
    num_heads: tuple[int, int, int, int] | None = None
    """Attention heads of each stage; as the size says if not given."""
    window: int = Field(default=6, gt=0)
    """Cells a side of an attention window; shrunk by itself where the map is smaller."""

    def build(self, *, num_features: int, channels: int, upscale: int) -> "InverseSwinHead":
        """Make the head for its neighbours' numbers.

        Raises:
            ValueError: where the target is coarser than the three doublings of the head.
        """
        least = 2**_EXPANSIONS
        if upscale % least:
            raise ValueError(
                f"head.kind=inverse_swin doubles the feature map {_EXPANSIONS} times, so the target must be a multiple of "
                f"{least} times as fine as the features, and is {upscale} times; take a finer target, or head.kind=linear"
            )
        width, depths, num_heads = _SIZES[self.size]
        return InverseSwinHead(
            num_features,
            width=self.width or width,
            depths=self.depths or depths,
            num_heads=self.num_heads or num_heads,
            window=self.window,
            channels=channels,
            last_expansion=upscale // least,
        )


class InverseSwinHead(nn.Module):
    """Four stages of Swin blocks, the map doubled and the width halved between them."""

    def __init__(
        self,
        num_features: int,
        *,
        width: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        window: int,
        channels: int,
        last_expansion: int,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(num_features, width)
        stages: list[nn.Module] = []
        for number, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            if number:
                stages.append(_Expand(width, factor=2, out=width // 2))
                width //= 2
            stages += [_Block(width, heads=heads, window=window, shifted=bool(block % 2)) for block in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.expand = _Expand(width, factor=last_expansion, out=width, norm=False)
        self.predict = nn.Linear(width, channels)
        self.apply(_initialise)

    def forward(self, features: Features) -> Prediction:
        """Predict from features (batch, num_features, h, w), at 8 * last_expansion times their resolution."""
        hidden: Tensor = self.project(features.permute(0, 2, 3, 1))
        hidden = self.expand(self.norm(self.stages(hidden)))
        return cast(Tensor, self.predict(hidden)).permute(0, 3, 1, 2)


def _initialise(module: nn.Module) -> None:
    """As Swin does it."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] - torch says there always is one
            nn.init.zeros_(module.bias)


class _Block(nn.Module):
    """timm's Swin block for maps of any size."""

    def __init__(self, width: int, *, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        block: Any = SwinTransformerBlock
        self.block: nn.Module = block(
            width,
            input_resolution=(window * 2, window * 2),  # not smaller than two windows, or timm would not shift
            num_heads=heads,
            window_size=window,
            shift_size=window // 2 if shifted else 0,
            dynamic_mask=True,
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return self.block(hidden)


class _Expand(nn.Module):
    """A linear layer to factor^2 times the channels of the output, laid out as a map factor times as fine."""

    def __init__(self, width: int, *, factor: int, out: int, norm: bool = True) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, out * factor**2, bias=False)
        self.norm = nn.LayerNorm(out) if norm else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        batch, rows, columns, _ = hidden.shape
        finer = self.expand(hidden).reshape(batch, rows, columns, self.factor, self.factor, -1)
        finer = finer.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows * self.factor, columns * self.factor, -1)
        return self.norm(finer)
