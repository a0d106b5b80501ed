"""The last block of a transformer where only some of its tokens are looked at afterwards: the others need no MLP.

Attention mixes tokens, so it runs on all of them; behind it each token goes its own way. What stands in the places that
nobody looks at is then no feature of anything.
"""

from collections.abc import Callable
from typing import Any

from timm.models.beit import Block as BeitBlock
from timm.models.vision_transformer import Block as ViTBlock  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn


def only_at(wanted: Tensor | None, x: Tensor, each: Callable[[Tensor], Tensor]) -> Tensor:
    """What is done to tokens one by one, to some of them; nothing stands in the places of the others.

    Args:
        wanted: their numbers, counted through all images (wanted); None for all.
        x: tokens (images, tokens, channels).
        each: from tokens (wanted, channels) to as many.
    """
    if wanted is None:
        return each(x)
    flat = x.flatten(0, 1)
    done = each(flat.index_select(0, wanted))
    return done.new_zeros(flat.shape).index_copy(0, wanted, done).view(x.shape)


def take_wanted(block: nn.Module) -> None:
    """Let timm's block of a ViT or BEiT also take the numbers of the tokens that are wanted: `block(x, wanted=numbers)`.

    As a call of the block itself, so that whatever hooks to it (checkpointing, sharded weights) sees it as well. A block of
    another class is left as it is.
    """
    known: dict[type[nn.Module], Any] = {ViTBlock: _WantedViT, BeitBlock: _WantedBeit}
    if type(block) in known:
        block.__class__ = known[type(block)]  # a wrapper would rename the weights


class WantedBlock:
    """A block that can be asked for some of its tokens."""


class _WantedViT(WantedBlock, ViTBlock):
    def forward(self, x: Tensor, *given: Any, wanted: Tensor | None = None, **more: Any) -> Tensor:
        if wanted is None:
            return super().forward(x, *given, **more)
        block: Any = self
        x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x), *given, **more)))
        return x + block.drop_path2(only_at(wanted, x, lambda some: block.ls2(block.mlp(block.norm2(some)))))


class _WantedBeit(WantedBlock, BeitBlock):
    def forward(self, x: Tensor, *given: Any, wanted: Tensor | None = None, **more: Any) -> Tensor:
        if wanted is None:
            return super().forward(x, *given, **more)
        block: Any = self
        first, second = (1.0, 1.0) if block.gamma_1 is None else (block.gamma_1, block.gamma_2)
        x = x + block.drop_path1(first * block.attn(block.norm1(x), *given, **more))
        return x + block.drop_path2(only_at(wanted, x, lambda some: second * block.mlp(block.norm2(some))))
