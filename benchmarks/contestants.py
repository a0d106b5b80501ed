"""Who takes a training step: ours, dense and visible-only, and the peers that can be installed."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
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
SIZES = {SWIN: 192, VIT: 224}


@dataclass(frozen=True)
class Where:
    """The machine a step is taken on: the CPU in float32, or a GPU in bfloat16."""

    device: str = "cpu"

    def autocast(self) -> AbstractContextManager[Any]:
        """The number format of the step."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu")

    def finished(self) -> None:
        """Wait for the GPU."""
        if self.device != "cpu":
            torch.cuda.synchronize()


Contestant = Callable[[Tensor, Where], Step]


def make_masks(images: Tensor, patch: int) -> Tensor:
    """Three fifths hidden in cells of 32 px, as published."""
    masking = RandomMasking(ratio=0.6, mask_patch=32)
    size = (images.shape[2], images.shape[3])
    generator = torch.Generator().manual_seed(0)
    return masking(len(images), image_size=size, patch_size=patch, generator=generator).to(images.device)


def our_model(name: str, *, visible_blocks: int = 0) -> SimMIM:
    """SimMIM of the published shape."""
    size = SIZES[name]
    config = (
        SwinConfig(window=6, visible_blocks=visible_blocks)
        if name == SWIN
        else BeitConfig(visible_blocks=visible_blocks)
    )
    encoder = config.build(image_size=(size, size), in_channels=3)
    target = PixelTarget().build(mean=(0.0,) * 3, std=(1.0,) * 3)
    return SimMIM(encoder=encoder, head=LinearHeadConfig(), target=target).train()


def _ours(
    images: Tensor,
    where: Where,
    *,
    name: str,
    visible_blocks: int = 0,
    checkpointing: bool = False,
    products: Products = "auto",
    compiled: bool = False,
) -> Step:
    keep_freed_memory(all_of_it=not checkpointing)
    model = our_model(name, visible_blocks=visible_blocks).to(images.device)
    if checkpointing:
        model.encoder.checkpoint_blocks()
    if compiled:
        model.compile()
    settings = OptimizerConfig()
    groups = group_parameters(model.named_parameters(), weight_decay=0.05, exempt=model.encoder.no_decay)
    optimizer, masks = build_adamw(groups, settings), make_masks(images.cpu(), model.encoder.patch_size)
    set_lr(optimizer, lambda share: 1e-4 * share)

    def step() -> None:
        arranged = model.arrange(masks).to(images.device)  # on the CPU and for every step, as in training
        with fast_products(products):
            with where.autocast():
                loss = model(images, masks.to(images.device), None, arranged).loss
            loss.backward()
        clip_gradients(optimizer, settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _peer(model: nn.Module, where: Where, loss: Callable[[], Tensor]) -> Step:
    """A peer's step as its users run it: AdamW with PyTorch's own choice of implementation."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def step() -> None:
        with where.autocast():
            found = loss()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _hugging_face_swin(images: Tensor, where: Where) -> Step:
    import transformers

    hf: Any = transformers
    shape = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 6}
    config = hf.SwinConfig(image_size=images.shape[2], encoder_stride=32, drop_path_rate=0.0, **shape)
    model = hf.SwinForMaskedImageModeling(config).to(images.device)
    mask = make_masks(images, 4).flatten(1)
    return _peer(model, where, lambda: model(images, bool_masked_pos=mask).loss)


def _hugging_face_vit(images: Tensor, where: Where) -> Step:
    import transformers

    hf: Any = transformers
    model = hf.ViTForMaskedImageModeling(hf.ViTConfig(image_size=images.shape[2], encoder_stride=16)).to(images.device)
    mask = make_masks(images, 16).flatten(1)
    return _peer(model, where, lambda: model(images, bool_masked_pos=mask).loss)


def _lightly_simmim(images: Tensor, where: Where) -> Step:
    """SimMIM as lightly's example puts it together, with the same masks."""
    import timm
    from lightly.models import utils
    from lightly.models.modules import MaskedVisionTransformerTIMM

    tools: Any = utils
    masked: Any = MaskedVisionTransformerTIMM
    vit: Any = timm.create_model("vit_base_patch16_224")
    encoder, head = masked(vit=vit).to(images.device), nn.Linear(768, 16 * 16 * 3).to(images.device)
    hidden = make_masks(images, 16).flatten(1)
    index = hidden.nonzero()[:, 1].view(len(images), -1) + 1

    def loss() -> Tensor:
        encoded = encoder.encode(images=images, idx_mask=index)
        patches = tools.get_at_index(tools.patchify(images, 16), index - 1)
        return nn.functional.l1_loss(head(tools.get_at_index(encoded, index)), patches)

    return _peer(nn.ModuleList((encoder, head)), where, loss)


def _lightly_mae(images: Tensor, where: Where) -> Step:
    """MAE as lightly's example puts it together: 75 % dropped, and a decoder of one block of width 512."""
    import timm
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

    tools: Any = utils
    masked: Any = MaskedVisionTransformerTIMM
    decoders: Any = MAEDecoderTIMM
    vit: Any = timm.create_model("vit_base_patch16_224")
    encoder = masked(vit=vit).to(images.device)
    decoder = decoders(
        num_patches=vit.patch_embed.num_patches,
        patch_size=16,
        embed_dim=768,
        decoder_embed_dim=512,
        decoder_depth=1,
        decoder_num_heads=16,
    ).to(images.device)

    def loss() -> Tensor:
        size = (len(images), encoder.sequence_length)
        kept, hidden = tools.random_token_mask(size=size, mask_ratio=0.75, device=images.device)
        encoded = decoder.embed(encoder.encode(images=images, idx_keep=kept))
        tokens = tools.repeat_token(decoder.mask_token, size)
        tokens = tools.set_at_index(tokens, kept, encoded.type_as(tokens))
        answer = decoder.predict(tools.get_at_index(decoder.decode(tokens), hidden))
        return nn.functional.mse_loss(answer, tools.get_at_index(tools.patchify(images, 16), hidden - 1))

    return _peer(nn.ModuleList((encoder, decoder)), where, loss)


def contestants(name: str, device: str) -> Mapping[str, Contestant]:
    """Who takes part; on a CPU with PyTorch's own products beside, on a GPU with the compiler."""
    ours, blocks = partial(_ours, name=name), 23 if name == SWIN else 11
    found: dict[str, Contestant] = {
        "simmim": ours,
        f"simmim, {blocks} blocks see visible tokens only": partial(ours, visible_blocks=blocks),
        "simmim, checkpointing": partial(ours, checkpointing=True),
    }
    if device == "cpu":
        found["simmim, without oneDNN"] = partial(ours, products="torch")
        found["simmim, visible only without oneDNN"] = partial(ours, visible_blocks=blocks, products="torch")
    else:
        found["simmim, compiled"] = partial(ours, compiled=True)
    peers: dict[str, Contestant] = {"Hugging Face": _hugging_face_swin}
    if name == VIT:
        peers = {"Hugging Face": _hugging_face_vit, "lightly": _lightly_simmim, "lightly, MAE": _lightly_mae}
    return found | peers


def is_dense_peer(who: str) -> bool:
    """Whether it is a peer's step on all tokens: what ratios are to."""
    return who in ("Hugging Face", "lightly")
