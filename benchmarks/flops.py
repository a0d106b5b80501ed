"""What a pre-training step of an image costs in FLOPs, beside the methods of the paper's table 6: counted, not quoted.

PyTorch's counter on the meta device: two operations for each product and sum of matrix products and convolutions, forward and
backward, attention written out. Every method with a ViT-B/16 as its authors train it, per image of the data set:

    SimMIM    all 196 patches of 224 px, a linear head to the pixels; Swin-B: 192 px, windows of 6
    BEiT      196 patches, DALL-E's encoder forward on the image at 112 px, a linear head to 8192 words for 75 hidden patches
    MAE       all patches embedded, 49 of 196 encoded, 8 blocks of 512 over all 196 to the pixels
    DINO      2 crops of 224 px and 10 of 96 px through the student, the 2 large ones forward through the teacher; its head:
              2048, 2048, 256, 65536
    MoCo v3   2 crops of 224 px through encoder, projector (4096, 4096, 256) and predictor (4096, 256); both forward through
              the momentum encoder

Not counted: optimizer, running averages of weights, losses, norms. The paper's column is relative time of its own runs.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from simmim.encoders import BeitConfig, SwinConfig
from simmim.heads import LinearHeadConfig
from simmim.model import SimMIM
from simmim.targets import PixelTarget
from simmim.targets.vae import DiscreteVAE, VAEShape

_PATCHES, _KEPT, _HIDDEN_BY_BEIT = 196, 49, 75
_WIDTH, _PATCH_PIXELS = 768, 3 * 16**2
PAPER = {"SimMIM, ViT-B 224": 1.0, "BEiT": 1.5, "DINO": 2.0, "MoCo v3": 1.8}
"""Relative cost as the paper's table 6 has it."""


def measure() -> dict[str, dict[str, float]]:
    """GFLOP an image, forward and backward together; `ratio` is to SimMIM's ViT-B, `paper` what its table 6 says."""
    methods: dict[str, Callable[[], int]] = {
        "SimMIM, ViT-B 224": lambda: _simmim(BeitConfig(), size=224),
        "SimMIM, Swin-B 192": lambda: _simmim(SwinConfig(window=6), size=192),
        "BEiT": _beit,
        "MAE": _mae,
        "DINO": _dino,
        "MoCo v3": _moco,
    }
    with torch.device("meta"):
        counts = {name: count() for name, count in methods.items()}
    own = counts["SimMIM, ViT-B 224"]
    return {
        name: {"gflops": count / 1e9, "ratio": count / own} | ({"paper": PAPER[name]} if name in PAPER else {})
        for name, count in counts.items()
    }


def words(numbers: dict[str, float]) -> tuple[str, str]:
    """A method's numbers for the table."""
    quoted = f" (paper, time: {numbers['paper']:g} x)" if "paper" in numbers else ""
    return f"{numbers['gflops']:.0f} GFLOP/image", f"{numbers['ratio']:.2f} x SimMIM's ViT-B{quoted}"


def _count(run: Callable[[], Tensor], *, backward: bool = True) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        found = run()
        if backward:
            found.sum().backward()
    return counter.get_total_flops()


def _simmim(config: BeitConfig | SwinConfig, *, size: int) -> int:
    encoder = config.build(image_size=(size, size), in_channels=3)
    target = PixelTarget().build(mean=(0.5,) * 3, std=(0.5,) * 3)
    model = SimMIM(encoder=encoder, head=LinearHeadConfig(), target=target).train()
    side = size // encoder.patch_size
    return _count(lambda: model(torch.empty(1, 3, size, size), torch.empty(1, side, side, dtype=torch.bool)).loss)


def _vit(size: int = 224) -> Any:
    return timm.create_model("vit_base_patch16_224", img_size=size, num_classes=0).train()


def _layers(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(inside, outside) for inside, outside in pairwise(widths)))


def _blocks(number: int, width: int, heads: int) -> nn.Sequential:
    block: Any = timm.models.vision_transformer.Block  # pyright: ignore[reportAttributeAccessIssue]
    return nn.Sequential(*(block(width, heads, qkv_bias=True) for _ in range(number)))


def _beit() -> int:
    encoder = BeitConfig().build(image_size=(224, 224), in_channels=3)
    head = nn.Linear(_WIDTH, 8192)
    tokenizer = DiscreteVAE(VAEShape(channels=3, words=8192, has_decoder=False))

    def learn() -> Tensor:
        rows = encoder(torch.empty(1, 3, 224, 224)).flatten(2).mT
        return head(rows[:, :_HIDDEN_BY_BEIT])

    return _count(learn) + _count(lambda: tokenizer.scores(torch.empty(1, 3, 112, 112)), backward=False)


def _mae() -> int:
    vit, enter, decoder, head = _vit(), nn.Linear(_WIDTH, 512), _blocks(8, 512, 16), nn.Linear(512, _PATCH_PIXELS)

    def learn() -> Tensor:
        patches: Tensor = vit.patch_embed(torch.empty(1, 3, 224, 224))
        encoded: Tensor = enter(vit.blocks(patches[:, : _KEPT + 1]))  # the class token in the place of one more
        every = torch.cat((encoded, torch.empty(1, _PATCHES - _KEPT, 512)), dim=1)
        return head(decoder(every)[:, 1:])

    return _count(learn)


def _dino() -> int:
    crops: Sequence[tuple[int, int]] = ((224, 2), (96, 10))
    student: dict[int, Any] = {size: _vit(size) for size, _ in crops}
    head = _layers(_WIDTH, 2048, 2048, 256, 65536)

    def pass_(size: int, number: int) -> Tensor:
        return head(student[size](torch.empty(number, 3, size, size)))

    learnt = sum(_count(lambda size=size, number=number: pass_(size, number)) for size, number in crops)
    return learnt + _count(lambda: pass_(*crops[0]), backward=False)


def _moco() -> int:
    vit, projector, predictor = _vit(), _layers(_WIDTH, 4096, 4096, 256), _layers(256, 4096, 256)

    def project() -> Tensor:
        return cast(Tensor, projector(vit(torch.empty(2, 3, 224, 224))))

    return _count(lambda: predictor(project())) + _count(project, backward=False)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(measure(), indent=2))


if __name__ == "__main__":
    main()
