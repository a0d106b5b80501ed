"""Every block's features of a timm backbone, pooled the moment a block gives them."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor, nn

from simmim.shapes import Images

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls")
"""The average of the patches, or the class token."""


class Place(NamedTuple):
    """Where features are taken."""

    layer: int
    """Number of the block, counted from 1 as in the paper; the last one is read behind the final norm."""
    pooling: Pooling


class Layers:
    """Reads the features of any blocks of a backbone in one pass.

    The last layer is what `forward_features` gives, final norm included. The blocks before it are read as they are. A
    backbone whose blocks are not known (neither `blocks` nor `layers` or `stages`) has that last layer only.
    """

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self._blocks = blocks_of(backbone)
        self.depth = max(len(self._blocks), 1)
        self._prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        has_class_token = self._prefix > 0 and getattr(backbone, "cls_token", None) is not None
        self.poolings = POOLINGS if has_class_token else POOLINGS[:1]

    def places(self, *, layer: int | None = None, pooling: str | None = None) -> list[Place]:
        """All places, or those of one layer or one pooling.

        Raises:
            ValueError: where the backbone has no such layer, or no such pooling.
        """
        if layer is not None and not 1 <= layer <= self.depth:
            raise ValueError(f"there is no layer {layer}; this encoder has the layers 1 to {self.depth}")
        if pooling is not None and pooling not in self.poolings:
            why = "; it has no class token" if pooling == "cls" else ""
            raise ValueError(f"pooling {pooling!r} is not possible here{why}; allowed: {', '.join(self.poolings)}")
        layers = range(1, self.depth + 1) if layer is None else (layer,)
        return [Place(one, way) for one in layers for way in self.poolings if pooling in (None, way)]

    def __call__(self, images: Images, places: Collection[Place]) -> dict[Place, Tensor]:
        """The features at these places, each (batch, channels of that block); whole maps are not kept."""
        found: dict[Place, Tensor] = {}

        def reader(layer: int) -> Callable[[nn.Module, object, Tensor], None]:
            def read(module: nn.Module, inputs: object, output: Tensor) -> None:
                found.update((place, self._pool(output, place.pooling)) for place in places if place.layer == layer)

            return read

        wanted = {place.layer for place in places}
        with ExitStack() as hooks:
            for layer, block in enumerate(self._blocks[:-1], start=1):
                if layer in wanted:
                    hooks.enter_context(block.register_forward_hook(reader(layer)))
            reader(self.depth)(self.backbone, (), self.backbone.forward_features(images))
        return {place: found[place] for place in places}

    def _pool(self, output: Tensor, pooling: Pooling) -> Tensor:
        if output.ndim == 3:
            return output[:, 0] if pooling == "cls" else output[:, self._prefix :].mean(dim=1)
        return output.mean(dim=(1, 2) if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC" else (2, 3))


def blocks_of(backbone: Any) -> list[nn.Module]:
    """The blocks of a backbone from first to last, those of all stages in one row."""
    blocks = getattr(backbone, "blocks", None)
    if isinstance(blocks, nn.ModuleList | nn.Sequential):
        return list(cast("nn.ModuleList", blocks))
    stages = getattr(backbone, "layers", getattr(backbone, "stages", None))
    if not isinstance(stages, nn.ModuleList | nn.Sequential):
        return []
    found = list[nn.Module]()
    for stage in cast("nn.ModuleList", stages):
        inner = getattr(stage, "blocks", None)
        found += list(cast("nn.ModuleList", inner)) if isinstance(inner, nn.ModuleList | nn.Sequential) else [stage]
    return found
