"""A whole training step beside the peers': forward, backward, clip, AdamW, on one batch of noise, interleaved."""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from simmim.encoders import BeitConfig, SwinConfig
from simmim.engine.allocator import keep_freed_memory
from simmim.engine.optimizer import OptimizerConfig, build_adamw, clip_gradients, group_parameters, set_lr
from simmim.engine.products import Products, fast_products
from simmim.heads import LinearHeadConfig
from simmim.masking import RandomMasking
from simmim.model import SimMIM
from simmim.targets import PixelTarget

Step = Callable[[], None]
SWIN, VIT = "Swin-B 192", "ViT-B 224"
_SIZES = {SWIN: 192, VIT: 224}


def measure(
    *, rounds: int = 5, batch: int = 4, threads: int = 1, names: tuple[str, ...] = (SWIN, VIT)
) -> dict[str, Any]:
    """Steps of all contestants in turn, each in a process of its own.

    Returns:
        By network and contestant: processor seconds a step (median), `ratio` to the fastest dense peer of the same round
        (median, and from-to), images a second of wall time, peak memory of a step in MB, weights and optimizer included.
        A peer that is not installed is None.
    """
    return {name: _contest(name, rounds=rounds, batch=batch, threads=threads) for name in names}


def words(numbers: Mapping[str, float] | None) -> tuple[str, str]:
    """A contestant's numbers for the table."""
    if numbers is None:
        return "not installed", ""
    measured = f"{numbers['seconds']:.2f} s a step, {numbers['peak_mb']:.0f} MB"
    if "ratio" not in numbers:
        return measured, "no peer is installed"
    low, high = numbers["from"], numbers["to"]
    return measured, f"{numbers['ratio']:.2f} x the fastest dense peer ({low:.2f} to {high:.2f})"


def _contest(name: str, *, rounds: int, batch: int, threads: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    found: dict[str, Any] = dict.fromkeys(CONTESTANTS[name])
    for who in CONTESTANTS[name]:
        ours, theirs = context.Pipe()
        context.Process(target=_take_part, args=(theirs, name, who, batch, threads), daemon=True).start()
        if ours.recv():
            ends[who] = ours
    seconds: dict[str, list[tuple[float, float]]] = {who: [] for who in ends}
    for round_ in range(rounds + 1):
        for who, end in ends.items():
            end.send("step")
            times = end.recv()
            if round_:  # the first round warms up
                seconds[who].append(times)
    dense = [[each[0] for each in times] for who, times in seconds.items() if not who.startswith("simmim")]
    for who, end in ends.items():
        end.send("end")
        cpu, wall = zip(*seconds[who], strict=True)
        found[who] = {
            "seconds": statistics.median(cpu),
            "images_per_second": batch / statistics.median(wall),
            "peak_mb": end.recv(),
        }
        if dense:
            ratios = [min(peer[number] for peer in dense) / cpu[number] for number in range(rounds)]
            found[who] |= {"ratio": statistics.median(ratios), "from": min(ratios), "to": max(ratios)}
    return found


def _take_part(end: Connection, name: str, who: str, batch: int, threads: int) -> None:
    """One contestant: makes its model, then a step whenever it is told to."""
    torch.set_num_threads(threads)
    size = _SIZES[name]
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        step = CONTESTANTS[name][who](images)
    except ImportError:  # a peer that is not installed stands in the table as such
        end.send(False)
        return
    end.send(True)
    while end.recv() == "step":
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        end.send((time.process_time() - cpu, time.perf_counter() - wall))
    end.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def _masks(images: Tensor, patch: int) -> Tensor:
    masking = RandomMasking(ratio=0.6, mask_patch=32)
    size = (images.shape[2], images.shape[3])
    return masking(len(images), image_size=size, patch_size=patch, generator=torch.Generator().manual_seed(0))


def _ours(
    images: Tensor, config: SwinConfig | BeitConfig, *, checkpointing: bool = False, products: Products = "auto"
) -> Step:
    keep_freed_memory()
    encoder = config.build(image_size=(images.shape[2], images.shape[3]), in_channels=3)
    if checkpointing:
        encoder.checkpoint_blocks()
    target = PixelTarget().build(mean=(0.0,) * 3, std=(1.0,) * 3)
    model = SimMIM(encoder=encoder, head=LinearHeadConfig(), target=target).train()
    settings = OptimizerConfig()
    groups = group_parameters(model.named_parameters(), weight_decay=0.05, exempt=encoder.no_decay)
    optimizer, mask = build_adamw(groups, settings), _masks(images, encoder.patch_size)
    set_lr(optimizer, lambda share: 1e-4 * share)

    def step() -> None:
        with fast_products(products):
            model(images, mask).loss.backward()
        clip_gradients(optimizer, settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _peer(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """A peer's step as its users run it: AdamW with PyTorch's own choice of implementation."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _hugging_face_swin(images: Tensor) -> Step:
    import transformers

    hf: Any = transformers
    shape = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 6}
    config = hf.SwinConfig(image_size=images.shape[2], encoder_stride=32, drop_path_rate=0.0, **shape)
    model = hf.SwinForMaskedImageModeling(config)
    mask = _masks(images, 4).flatten(1)
    return _peer(model, lambda: model(images, bool_masked_pos=mask).loss)


def _hugging_face_vit(images: Tensor) -> Step:
    import transformers

    hf: Any = transformers
    model = hf.ViTForMaskedImageModeling(hf.ViTConfig(image_size=images.shape[2], encoder_stride=16))
    mask = _masks(images, 16).flatten(1)
    return _peer(model, lambda: model(images, bool_masked_pos=mask).loss)


def _lightly(images: Tensor) -> Step:
    """SimMIM as lightly's example puts it together, with the same masks."""
    import timm
    from lightly.models import utils
    from lightly.models.modules import MaskedVisionTransformerTIMM

    tools: Any = utils
    masked: Any = MaskedVisionTransformerTIMM
    vit: Any = timm.create_model("vit_base_patch16_224")
    encoder, head = masked(vit=vit), nn.Linear(768, 16 * 16 * 3)
    hidden = _masks(images, 16).flatten(1)
    index = hidden.nonzero()[:, 1].view(len(images), -1) + 1

    def loss() -> Tensor:
        encoded = encoder.encode(images=images, idx_mask=index)
        patches = tools.get_at_index(tools.patchify(images, 16), index - 1)
        return nn.functional.l1_loss(head(tools.get_at_index(encoded, index)), patches)

    return _peer(nn.ModuleList((encoder, head)), loss)


CONTESTANTS: Mapping[str, Mapping[str, Callable[[Tensor], Step]]] = {
    SWIN: {
        "simmim": partial(_ours, config=SwinConfig(window=6)),
        "simmim, checkpointing": partial(_ours, config=SwinConfig(window=6), checkpointing=True),
        "simmim, 23 blocks see visible tokens only": partial(_ours, config=SwinConfig(window=6, visible_blocks=23)),
        "Hugging Face": _hugging_face_swin,
    },
    VIT: {
        "simmim": partial(_ours, config=BeitConfig()),
        "simmim, checkpointing": partial(_ours, config=BeitConfig(), checkpointing=True),
        "simmim, 11 blocks see visible tokens only": partial(_ours, config=BeitConfig(visible_blocks=11)),
        "Hugging Face": _hugging_face_vit,
        "lightly": _lightly,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=[SWIN, VIT], default=None)
    given = parser.parse_args()
    names = (given.only,) if given.only else (SWIN, VIT)
    print(json.dumps(measure(rounds=given.rounds, batch=given.batch, threads=given.threads, names=names), indent=2))


if __name__ == "__main__":
    main()
