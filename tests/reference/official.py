"""The official models written from their published facts, straight from a state dict in the official layout.

Swin, SwinV2 and the BEiT-like ViT of microsoft/SimMIM and microsoft/Swin-Transformer: no classes, square images.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
SPREAD = 0.1
"""Of random weights: wide enough that every part of a small network matters to the result, so that no error hides."""


def swin_file(
    *, dim: int, depths: tuple[int, ...], heads: tuple[int, ...], size: int, window: int, version: int
) -> State:
    """A pre-training file with random weights and the buffers that the official code stores."""
    state: State = {"encoder.mask_token": _random(1, 1, dim)}
    _linear(state, "encoder.patch_embed.proj", dim, 3, 4, 4)
    _norm(state, "encoder.patch_embed.norm", dim)
    for stage, (depth, head) in enumerate(zip(depths, heads, strict=True)):
        width, side = dim * 2**stage, size // 4 // 2**stage
        win = min(window, side)
        for block in range(depth):
            at = f"encoder.layers.{stage}.blocks.{block}"
            _norm(state, f"{at}.norm1", width)
            _norm(state, f"{at}.norm2", width)
            _linear(state, f"{at}.attn.proj", width, width)
            _linear(state, f"{at}.mlp.fc1", 4 * width, width)
            _linear(state, f"{at}.mlp.fc2", width, 4 * width)
            _linear(state, f"{at}.attn.qkv", 3 * width, width)
            state[f"{at}.attn.relative_position_index"] = _index(win)
            if version == 1:
                state[f"{at}.attn.relative_position_bias_table"] = _random((2 * win - 1) ** 2, head)
            else:
                del state[f"{at}.attn.qkv.bias"]
                state[f"{at}.attn.q_bias"], state[f"{at}.attn.v_bias"] = _random(width), _random(width)
                state[f"{at}.attn.logit_scale"] = torch.log(10 * torch.ones(head, 1, 1)) + _random(head, 1, 1)
                _linear(state, f"{at}.attn.cpb_mlp.0", 512, 2)
                state[f"{at}.attn.cpb_mlp.2.weight"] = _random(head, 512)
                state[f"{at}.attn.relative_coords_table"] = _coordinates(win, win)
            if block % 2 and win < side:
                state[f"{at}.attn_mask"] = _shift_mask(side, win, win // 2)
        if stage + 1 < len(depths):
            _norm(state, f"encoder.layers.{stage}.downsample.norm", (4 if version == 1 else 2) * width)
            state[f"encoder.layers.{stage}.downsample.reduction.weight"] = _random(2 * width, 4 * width)
    _norm(state, "encoder.norm", width)
    stride = 4 * 2 ** (len(depths) - 1)
    _linear(state, "decoder.0", 3 * stride**2, width, 1, 1)
    return state


def vit_file(*, dim: int, depth: int, heads: int, size: int, patch: int) -> State:
    """A pre-training file of the paper's ViT with random weights."""
    side = size // patch
    state: State = {"encoder.mask_token": _random(1, 1, dim), "encoder.cls_token": _random(1, 1, dim)}
    _linear(state, "encoder.patch_embed.proj", dim, 3, patch, patch)
    state["encoder.rel_pos_bias.relative_position_bias_table"] = _random((2 * side - 1) ** 2 + 3, heads)
    state["encoder.rel_pos_bias.relative_position_index"] = _index_with_class_token(side)
    for block in range(depth):
        at = f"encoder.blocks.{block}"
        for word in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias"):
            state[f"{at}.{word}"] = _random(dim)
        _norm(state, f"{at}.norm1", dim)
        _norm(state, f"{at}.norm2", dim)
        state[f"{at}.attn.qkv.weight"] = _random(3 * dim, dim)
        _linear(state, f"{at}.attn.proj", dim, dim)
        _linear(state, f"{at}.mlp.fc1", 4 * dim, dim)
        _linear(state, f"{at}.mlp.fc2", dim, 4 * dim)
    _norm(state, "encoder.norm", dim)
    _linear(state, "decoder.0", 3 * patch**2, dim, 1, 1)
    return state


def swin_features(state: State, images: Tensor, mask: Tensor) -> Tensor:
    """The last map (batch, channels, rows, columns) of a Swin or SwinV2 pre-training file."""
    x = _hidden(state, images, mask, norm=True)
    stage = 0
    while f"encoder.layers.{stage}.blocks.0.norm1.weight" in state:
        block = 0
        while f"encoder.layers.{stage}.blocks.{block}.norm1.weight" in state:
            x = _swin_block(state, f"encoder.layers.{stage}.blocks.{block}", x, shifted=block % 2 == 1)
            block += 1
        at = f"encoder.layers.{stage}.downsample"
        if f"{at}.reduction.weight" in state:
            x = torch.cat([x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))], dim=-1)
            reduction = state[f"{at}.reduction.weight"]
            first = state[f"{at}.norm.weight"].numel() == x.shape[-1]
            x = F.linear(_ln(state, f"{at}.norm", x), reduction) if first else _ln(state, f"{at}.norm", x @ reduction.T)
        stage += 1
    return _ln(state, "encoder.norm", x).permute(0, 3, 1, 2)


def _swin_block(state: State, at: str, x: Tensor, *, shifted: bool) -> Tensor:
    side, win = x.shape[1], round(state[f"{at}.attn.relative_position_index"].shape[0] ** 0.5)
    shift = win // 2 if shifted and win < side else 0
    second = f"{at}.attn.logit_scale" in state
    y = x if second else _ln(state, f"{at}.norm1", x)
    y = (
        y.roll((-shift, -shift), (1, 2)).unfold(1, win, win).unfold(2, win, win)
    )  # batch, rows, columns, channels, win, win
    batch, count, channels = len(x), side // win, x.shape[-1]
    y = y.permute(0, 1, 2, 4, 5, 3).reshape(batch * count**2, win**2, channels)
    y = _attend(state, f"{at}.attn", y, win, _shift_mask(side, win, shift) if shift else None, second=second)
    y = (
        y.reshape(batch, count, count, win, win, channels)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(batch, side, side, channels)
    )
    y = y.roll((shift, shift), (1, 2))
    if second:
        x = x + _ln(state, f"{at}.norm1", y)
        return x + _ln(state, f"{at}.norm2", _mlp(state, f"{at}.mlp", x))
    x = x + y
    return x + _mlp(state, f"{at}.mlp", _ln(state, f"{at}.norm2", x))


def _attend(state: State, at: str, x: Tensor, win: int, mask: Tensor | None, *, second: bool) -> Tensor:
    if second:
        bias = torch.cat((state[f"{at}.q_bias"], torch.zeros_like(state[f"{at}.q_bias"]), state[f"{at}.v_bias"]))
        heads = len(state[f"{at}.logit_scale"])
        table = F.relu(_affine(state, f"{at}.cpb_mlp.0", _coordinates(win, win)[0])) @ state[f"{at}.cpb_mlp.2.weight"].T
        table = 16 * torch.sigmoid(table.reshape(-1, heads))
    else:
        bias, table = state[f"{at}.qkv.bias"], state[f"{at}.relative_position_bias_table"]
        heads = table.shape[1]
    qkv = F.linear(x, state[f"{at}.qkv.weight"], bias).reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv
    if second:
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
        scores = scores * state[f"{at}.logit_scale"].clamp(max=torch.log(torch.tensor(100.0)).item()).exp()
    else:
        scores = query * query.shape[-1] ** -0.5 @ key.mT
    scores = scores + table[_index(win).flatten()].reshape(win**2, win**2, heads).permute(2, 0, 1)
    if mask is not None:
        scores = (scores.reshape(-1, len(mask), *scores.shape[1:]) + mask[:, None]).reshape(scores.shape)
    return _affine(state, f"{at}.proj", (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(x.shape))


def vit_features(state: State, images: Tensor, mask: Tensor, *, normed: bool = True) -> Tensor:
    """The map of patch tokens of the paper's ViT, behind its final norm or before it.

    With position embeddings, and a bias for each block, where the file has them.
    """
    x = _hidden(state, images, mask, norm=False)
    side, shape = x.shape[1], (len(x), x.shape[1], x.shape[2], -1)
    x = torch.cat((state["encoder.cls_token"].expand(len(x), -1, -1), x.flatten(1, 2)), dim=1)
    x = x + state.get("encoder.pos_embed", 0)
    block = 0
    while f"encoder.blocks.{block}.gamma_1" in state:
        at = f"encoder.blocks.{block}"
        owner = "encoder.rel_pos_bias" if "encoder.rel_pos_bias.relative_position_bias_table" in state else f"{at}.attn"
        table = state[f"{owner}.relative_position_bias_table"]
        heads = table.shape[1]
        bias = table[_index_with_class_token(side).flatten()].reshape(side**2 + 1, side**2 + 1, heads)
        y = _ln(state, f"{at}.norm1", x, 1e-6)
        q_bias, v_bias = state[f"{at}.attn.q_bias"], state[f"{at}.attn.v_bias"]
        qkv = F.linear(y, state[f"{at}.attn.qkv.weight"], torch.cat((q_bias, torch.zeros_like(q_bias), v_bias)))
        query, key, value = qkv.reshape(*y.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        scores = query * query.shape[-1] ** -0.5 @ key.mT + bias.permute(2, 0, 1)
        y = _affine(state, f"{at}.attn.proj", (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(y.shape))
        x = x + state[f"{at}.gamma_1"] * y
        x = x + state[f"{at}.gamma_2"] * _mlp(state, f"{at}.mlp", _ln(state, f"{at}.norm2", x, 1e-6))
        block += 1
    x = _ln(state, "encoder.norm", x, 1e-6) if normed else x
    return x[:, 1:].reshape(shape).permute(0, 3, 1, 2)


def decode(state: State, features: Tensor) -> Tensor:
    """The prediction in pixels: a 1x1 convolution and a pixel shuffle."""
    answer = F.conv2d(features, state["decoder.0.weight"], state["decoder.0.bias"])
    return F.pixel_shuffle(answer, round((len(answer[0]) / 3) ** 0.5))


def loss(images: Tensor, prediction: Tensor, mask: Tensor, *, window: int = 0) -> Tensor:
    """The official loss; the target is normalised in `window` pixels around each where that is not 0."""
    cell = images.shape[2] // mask.shape[1]
    pixels = mask.float().repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
    target = _normalised(images, window) if window else images
    return ((target - prediction).abs() * pixels).sum() / (pixels.sum() + 1e-5) / 3


def _normalised(images: Tensor, window: int) -> Tensor:
    """Moments of each window, cut at the border, by tables of sums in float64."""
    exact = images.double()
    count = _window_sums(torch.ones_like(exact), window)
    mean = _window_sums(exact, window) / count
    variance = (_window_sums(exact**2, window) - count * mean**2) / (count - 1)
    return ((exact - mean) / (variance.clamp_min(0) + 1e-6).sqrt()).float()


def _window_sums(values: Tensor, window: int) -> Tensor:
    """Sums over windows centred on each pixel: four corners of the sums over everything above and left of a pixel."""
    half = window // 2
    table = F.pad(values.cumsum(2).cumsum(3), (1, 0, 1, 0))
    (top, bottom), (left, right) = (
        ((at - half).clamp_min(0), (at + half + 1).clamp_max(len(at))) for at in map(torch.arange, values.shape[2:])
    )
    below, above = table[:, :, bottom], table[:, :, top]
    return below[..., right] - below[..., left] - above[..., right] + above[..., left]


def _hidden(state: State, images: Tensor, mask: Tensor, *, norm: bool) -> Tensor:
    weight = state["encoder.patch_embed.proj.weight"]
    x = F.conv2d(images, weight, state["encoder.patch_embed.proj.bias"], stride=weight.shape[-1]).permute(0, 2, 3, 1)
    x = _ln(state, "encoder.patch_embed.norm", x) if norm else x
    hide = mask.float()[..., None]
    return x * (1 - hide) + state["encoder.mask_token"] * hide


def _index(win: int) -> Tensor:
    at = torch.cartesian_prod(torch.arange(win), torch.arange(win))
    apart = at[:, None] - at[None, :] + win - 1
    return apart[..., 0] * (2 * win - 1) + apart[..., 1]


def _index_with_class_token(side: int) -> Tensor:
    """The last three rows of the table: from the class token to a patch, from a patch to it, and to itself."""
    index = torch.empty(side**2 + 1, side**2 + 1, dtype=torch.long)
    index[1:, 1:], first = _index(side), (2 * side - 1) ** 2
    index[0], index[:, 0], index[0, 0] = first, first + 1, first + 2
    return index


def _coordinates(win: int, pretrained: int) -> Tensor:
    line = torch.arange(-(win - 1), win, dtype=torch.float32) / (pretrained - 1) * 8
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)[None]
    return grid.sign() * torch.log2(grid.abs() + 1) / 3


def _shift_mask(side: int, win: int, shift: int) -> Tensor:
    """-100 between places of a window that lie in different regions of the rolled map."""
    edges = (0, side - win, side - shift, side)
    region = torch.zeros(side, side)
    for row, (top, bottom) in enumerate(pairwise(edges)):
        for column, (left, right) in enumerate(pairwise(edges)):
            region[top:bottom, left:right] = 3 * row + column
    cells = region.unfold(0, win, win).unfold(1, win, win).reshape(-1, win**2)
    return torch.where(cells[:, :, None] == cells[:, None, :], 0.0, -100.0)


def _mlp(state: State, at: str, x: Tensor) -> Tensor:
    return _affine(state, f"{at}.fc2", F.gelu(_affine(state, f"{at}.fc1", x)))


def _affine(state: State, at: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{at}.weight"], state[f"{at}.bias"])


def _ln(state: State, at: str, x: Tensor, epsilon: float = 1e-5) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{at}.weight"], state[f"{at}.bias"], epsilon)


def _linear(state: State, at: str, *shape: int) -> None:
    state[f"{at}.weight"], state[f"{at}.bias"] = _random(*shape), _random(shape[0])


def _norm(state: State, at: str, width: int) -> None:
    state[f"{at}.weight"], state[f"{at}.bias"] = 1 + _random(width), _random(width)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape) * SPREAD
