"""Attention that keeps no scores: PyTorch's own, in its result and in all its gradients."""

import pytest
import torch
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional as F

from simmim.encoders import attention
from simmim.encoders.attention import biased_attention, keep_no_scores


def _inputs(images: int, biases: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(images, 10, 3, 2, 4, generator=generator, dtype=torch.float64)
    return qkv.requires_grad_(), torch.randn(
        biases, 2, 10, 10, generator=generator, dtype=torch.float64
    ).requires_grad_()


@pytest.mark.parametrize(("images", "biases"), [(1, 1), (5, 1), (5, 5)])
@pytest.mark.parametrize("at_a_time", [1, 400, 2**20])
def test_result_and_gradients_are_those_of_pytorch(
    images: int, biases: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_SCORES_AT_A_TIME", at_a_time)
    qkv, bias = _inputs(images, biases)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3).transpose(1, 2).flatten(2)
    ours = biased_attention(qkv, bias, scale=0.3)
    assert torch.allclose(ours, theirs, atol=1e-12)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad((out * weights).sum(), (qkv, bias)) for out in (ours, theirs)), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-12)


def test_the_gradient_is_the_slope() -> None:
    qkv, bias = _inputs(2, 1)
    assert torch.autograd.gradcheck(lambda a, b: biased_attention(a, b, scale=0.5), (qkv, bias))


@pytest.mark.parametrize("own_tables", [False, True])
def test_a_network_learns_as_timms_own(own_tables: bool) -> None:
    torch.manual_seed(0)
    beit = Beit(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0,
        use_shared_rel_pos_bias=not own_tables, use_rel_pos_bias=own_tables, use_abs_pos_emb=False, init_values=0.5,
    )  # fmt: skip
    for parameter in beit.parameters():
        nn.init.normal_(parameter, std=0.2)
    images, weights = torch.randn(3, 3, 32, 32), torch.randn(3, 17, 24)
    names, parameters = zip(*[(n, p) for n, p in beit.named_parameters() if "fc_norm" not in n], strict=True)
    kept = list[int]()
    gradients: list[tuple[Tensor, ...]] = []
    for lean in (False, True):
        if lean:
            for block in beit.blocks:
                keep_no_scores(block.attn)  # type: ignore[union-attr]
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = (beit.forward_features(images) * weights).sum()
        gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True))
        kept.append(total)
    for name, one, other in zip(names, *gradients, strict=True):
        assert (one is None) == (other is None), name
        if one is not None and other is not None:
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item()), name
    assert kept[1] < kept[0]
