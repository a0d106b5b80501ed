"""What a plan says beforehand is what a real step then takes, and a person can follow it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import gelu, mse_loss
from torch.utils.flop_counter import FlopCounterMode

from reference.memory import peak_bytes
from simmim.data import Statistics
from simmim.encoders import attention
from simmim.model import SimMIM
from simmim.tasks.catalogue import resolve
from simmim.tasks.plan import GPUS, Cluster, build_network, find_gpu, make_plan, take_step
from simmim.tasks.plan.formats import LikeAGpu
from simmim.tasks.plan.pretend import Ledger
from simmim.tasks.plan.words import conclusion
from simmim.tasks.pretrain import PretrainConfig, build_model, draw_masks
from tasks.support import refusal

IMAGES = 3
STATISTICS = Statistics(3, (0.5,) * 3, (0.25,) * 3)
SMALL = ("data.image_size=128 px", "batch=64 images")
NETWORKS: dict[str, tuple[str, ...]] = {
    "ViT, shared bias": ("encoder={kind: beit, embed_dim: 96, num_heads: 3}",),
    "ViT, visible only": ("encoder={kind: vit, embed_dim: 192, num_heads: 3, visible_blocks: 10}",),
    "Swin": ("encoder={kind: swin, name: swin_tiny_patch4_window7_224, window: 4}",),
    "Swin, visible only": ("encoder={kind: swin, name: swin_tiny_patch4_window7_224, window: 4, visible_blocks: 9}",),
    "SwinV2": ("encoder={kind: swinv2, name: swinv2_tiny_window8_256, window: 4}", "target={kind: local_pixels}"),
}


def config_of(*settings: str, recipe: str = "swin_base_192px_100ep") -> PretrainConfig:
    config = resolve(recipe, settings, task="pretrain")
    assert isinstance(config, PretrainConfig)
    return config


def real_step(config: PretrainConfig, checkpointing: str) -> tuple[SimMIM, Any]:
    """A model with weights, and a function that runs its micro batch forward and backward."""
    model = build_model(config, STATISTICS).train()
    if checkpointing == "blocks":
        model.encoder.checkpoint_blocks()
    images = torch.randn(IMAGES, 3, *model.encoder.image_size)
    mask = draw_masks(config, model, batch=1, step=0).expand(IMAGES, -1, -1).contiguous()
    return model, lambda: model(images, mask, None, model.arrange(mask)).loss.backward()


@pytest.mark.parametrize("checkpointing", ["none", "blocks"])
@pytest.mark.parametrize("name", NETWORKS)
def test_memory_and_flops_are_those_of_a_real_step(
    name: str, checkpointing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_pays", lambda x: False)  # a plan is of GPUs, which have PyTorch's own attention
    config = config_of(*SMALL, *NETWORKS[name])
    predicted = take_step(build_network(config, channels=3), checkpointing=checkpointing, precision="fp32", fused=False)
    model, step = real_step(config, checkpointing)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    assert predicted.total.both * IMAGES == pytest.approx(counter.get_total_flops(), rel=0.01)
    model.zero_grad(set_to_none=True)
    assert predicted.alive(IMAGES).sum(axis=1).max() == pytest.approx(peak_bytes(step), rel=0.15)


def test_parameters_are_those_of_the_real_model() -> None:
    config = config_of(*SMALL, *NETWORKS["Swin"])
    network = build_network(config, channels=3)
    model, _ = real_step(config, "none")
    assert sum(network.parameters_by_part().values()) == sum(each.numel() for each in model.parameters())
    assert list(network.parameters_by_part()) == [
        "embedding", "stage 1", "stage 2", "stage 3", "stage 4", "rest of the encoder", "head"
    ]  # fmt: skip


def test_the_flops_of_parts_are_counted_by_hand() -> None:
    """The head and the patch embedding are one product each, of known sizes; the images need no gradient, visible cells no
    head."""
    config = config_of(*SMALL, *NETWORKS["ViT, shared bias"], "masking.mask_patch=16 px")
    network = build_network(config, channels=3)
    flops = take_step(network, checkpointing="none", precision="bf16").flops
    hidden = float(network.inputs(1)[0].float().mean())
    one = 2 * 8 * 8 * 96 * 16 * 16 * 3
    assert flops["embedding"] == (one, one)
    assert flops["head"] == (hidden * one, 2 * hidden * one)


def test_checkpointing_adds_the_forward_pass_of_the_blocks() -> None:
    network = build_network(config_of(*SMALL, *NETWORKS["Swin"]), channels=3)
    plain, again = (take_step(network, checkpointing=how, precision="bf16") for how in ("none", "blocks"))
    of_blocks = sum(flops.forward for part, flops in plain.flops.items() if part.startswith("stage"))
    added = again.total.both - plain.total.both
    merging = 2 * (16 * 16 * 384 * 192 + 8 * 8 * 768 * 384 + 4 * 4 * 1536 * 768)  # lies between the blocks
    # The last product of each block is needed by nothing in the backward pass; but the last block puts what it gives in places.
    last = 11 * 2 * 4 * 16 * 768**2
    assert added == pytest.approx(of_blocks - merging - last)
    assert again.alive(IMAGES)[:, 2].max() < plain.alive(IMAGES)[:, 2].max() / 2


GIANT = "encoder={kind: swinv2, name: swinv2_giant_window12_192, embed_dim: 32, depths: [2, 2, 7, 1], num_heads: [1, 2, 4, 8]"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "blocks"])
def test_attention_a_few_windows_at_a_time_is_planned(checkpointing: str, precision: str) -> None:
    plain, few = (
        take_step(
            build_network(config_of(*SMALL, f"{GIANT}, window: 4, sequential_stages: {stages}}}")),
            checkpointing=checkpointing,
            precision=precision,
        )
        for stages in (0, 2)
    )
    assert few.total.forward == pytest.approx(
        plain.total.forward, rel=1e-3
    )  # the small network of the bias runs more often
    assert few.total.backward >= plain.total.backward
    if checkpointing == "none":  # the others keep no attention maps either
        assert few.alive(IMAGES)[:, 2].max() < plain.alive(IMAGES)[:, 2].max()


def test_a_plan_counted_in_epochs_says_of_which_images() -> None:
    giant = resolve("swinv2_giant", task="pretrain")
    assert isinstance(giant, PretrainConfig)
    said = {
        images: " ".join(conclusion(make_plan(giant, Cluster(GPUS["h100"], 64), recipe="swinv2_giant", images=images)))
        for images in (None, 70_000_000)
    }
    assert "20 epochs of ImageNet-1K's 1,281,167 images (--images for yours)" in said[None]
    assert "warm-up alone is 30,000 steps" in said[None]
    assert "20 epochs of 70,000,000 images." not in said[None]
    assert "20 epochs of 70,000,000 images" in said[70_000_000]
    assert "warm-up" not in said[70_000_000]


def test_a_network_that_gains_nothing_by_it_is_not_spread() -> None:
    found = make_plan(config_of(recipe="tiny"), Cluster(GPUS["h100"], 2), recipe="tiny")
    assert found.cheapest is not None
    assert (found.cheapest.setting.parallel, found.cheapest.setting.checkpointing) == ("ddp", "none")


def test_formats_are_autocasts_own() -> None:
    """The formats of results are those of torch.autocast, where both a CPU and a GPU treat an operation alike."""
    layer = torch.nn.Linear(4, 4)
    x = torch.randn(2, 4)
    copies: list[torch.Tensor] = []
    with LikeAGpu(torch.bfloat16, copies.append):
        ours = [layer(x), layer(x) @ layer(x).mT, gelu(layer(x)), mse_loss(layer(x), x)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = [layer(x), layer(x) @ layer(x).mT, gelu(layer(x)), mse_loss(layer(x), x)]
    assert [each.dtype for each in ours] == [each.dtype for each in theirs]
    assert [tuple(copy.shape) for copy in copies] == [(4, 4), (4,)], "a weight is copied once a forward pass"


def test_whole_numbers_stay_real_and_floats_do_not() -> None:
    with Ledger(), torch.device("meta"):
        places, values = torch.arange(5), torch.rand(5)
        picked = values[places.flip(0)[:2]]
    assert places.tolist() == [0, 1, 2, 3, 4]
    assert values.is_meta
    assert picked.is_meta
    assert picked.shape == (2,)


# ---------------------------------------------------------------------------------------------------------------- settings


def plan_of(*settings: str, gpu: str = "h100", gpus: int = 1, **more: Any):
    config = config_of(*SMALL, *settings)
    return make_plan(config, Cluster(GPUS[gpu], gpus, **more), recipe="swin_base_192px_100ep", overrides=settings)


def test_memory_of_weights_gradients_and_optimizer_is_16_bytes_a_parameter() -> None:
    found = plan_of(*NETWORKS["Swin"], "machine.precision=fp32")
    count = sum(found.parameters.values())
    option = next(one for one in found.options if one.setting.precision == "fp32")
    assert option.memory.optimizer == 8 * count
    assert option.memory.weights == pytest.approx(4 * count, rel=0.02)  # and buffers
    assert option.memory.gradients <= 4 * count


def test_sharding_divides_what_can_be_divided() -> None:
    one, four = plan_of(*NETWORKS["Swin"], gpus=2), plan_of(*NETWORKS["Swin"], gpus=8)
    two, eight = (next(each for each in found.options if each.setting.parallel == "fsdp") for found in (one, four))
    assert two.memory.optimizer == pytest.approx(4 * eight.memory.optimizer)
    whole = next(each for each in four.options if each.setting.parallel == "ddp")
    assert whole.memory.optimizer == pytest.approx(8 * eight.memory.optimizer)
    assert whole.memory.exchange == 4 * sum(four.parameters.values()), "DDP's buckets"


def test_time_is_flops_over_the_stated_rate() -> None:
    found = plan_of(*NETWORKS["Swin"], utilisation=0.5)
    assert found.cheapest is not None
    flops = sum(sum(each) for each in found.flops.values())
    assert found.images_per_second(found.cheapest) == pytest.approx(0.5 * 989.4e12 / flops)
    steps = 100 * (1_281_167 // 64)
    assert found.days(found.cheapest) == pytest.approx(steps * 64 * flops / (0.5 * 989.4e12) / 86400)


def test_a_small_card_gets_a_smaller_micro_batch_and_then_checkpointing() -> None:
    """The same network, ever less room: what is chosen fits, and the next larger would not."""
    network = NETWORKS["Swin"]
    plenty = plan_of(*network)
    assert plenty.cheapest is not None
    assert plenty.cheapest.setting == ("one", "none", "fp16", 64)
    least = plenty.least.memory.total
    tight = 1 - 1.05 * least / (80 * 2**30)
    squeezed = plan_of(*network, margin=tight)
    assert squeezed.cheapest is not None
    assert squeezed.cheapest.memory.total <= squeezed.cluster.room
    assert squeezed.cheapest.setting.micro_batch < 64 or squeezed.cheapest.setting.checkpointing != "none"


def test_a_card_without_the_format_is_given_another() -> None:
    found = plan_of(*NETWORKS["Swin"], "machine.precision=bf16", gpu="t4")
    assert found.as_written is None
    assert {option.setting.precision for option in found.options} == {"fp16"}


def test_the_command_of_the_cheapest_is_accepted(tmp_path: Path) -> None:
    found = plan_of(*NETWORKS["Swin"], "machine.precision=fp32")
    assert found.cheapest is not None
    words = found.command(found.cheapest)
    assert words.startswith("simmim pretrain swin_base_192px_100ep --data DATA --out RUN 'encoder=")
    settings = [word for word in _split(words)[7:] if not word.startswith("batch")]
    config = config_of(*settings)
    assert (config.machine.precision, config.machine.micro_batch) == ("bf16", 64)


def _split(words: str) -> list[str]:
    import shlex

    return shlex.split(words)


def test_where_nothing_fits_it_says_what_would_help() -> None:
    giant = config_of(recipe="swinv2_giant")
    found = make_plan(giant, Cluster(GPUS["rtx4090"], 4), recipe="swinv2_giant")
    assert found.cheapest is None
    assert found.backbone_parameters / 1e6 == pytest.approx(2997.8, abs=0.1)
    assert any("GiB would hold it" in advice for advice in found.advice)
    (more,) = [int(advice.split()[1].rstrip(":")) for advice in found.advice if advice.startswith("--gpus ")]
    assert make_plan(giant, Cluster(GPUS["rtx4090"], more), recipe="swinv2_giant").cheapest is not None


# ----------------------------------------------------------------------------------------------------------------- a person


def test_the_command_prints_numbers_and_draws_them(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "base: tiny\ndata: {image_size: 64x96 px, channels: 13}\nbatch: 48 images\n"
        "schedule: {duration: 30 steps, warmup: 3 steps}\n",
        encoding="utf-8",
    )
    picture = tmp_path / "pictures" / "plan.svg"
    words = ["plan", str(own), "--gpus", "4", "--gpu", "a100-80", "--json", "--picture", str(picture)]
    done = subprocess.run([sys.executable, "-m", "simmim", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["gpu"] == "a100-80gb"
    assert found["images_per_gpu_and_step"] == 12
    assert found["total_steps"] == 30
    assert found["cheapest"]["command"].startswith("torchrun --nproc-per-node 4 -m simmim pretrain ")
    assert "13 channels" in found["assumptions"][0]
    assert "64x96 px" in found["assumptions"][0]
    model = build_model(config_of(recipe=str(own)), Statistics(13, (0.5,) * 13, (0.5,) * 13))
    assert found["parameters"] == sum(each.numel() for each in model.parameters())
    assert "does not fit" not in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--gpus", "0"], "--gpus 0: there must be at least 1"),
        (["--gpu", "h2000"], "did you mean 'h200'"),
        (["--gpu", "a100"], "did you mean a100-40gb or a100-80gb?"),
        (["--utilisation", "40"], "a share of the peak rate"),
        (["--gpus", "5000"], "cannot be shared by 5000 GPUs"),
        (["--picture", "plan.txt"], "a picture is a .png, .svg, .pdf file"),
        (["data.image_size=200 px"], "nearest: 192 or 224"),
        (["--images", "5"], "--images 5: a step is a batch of 2048 images"),
        (["--gpu", ""], "--gpu takes a name; known: t4,"),
        (["--channels", "0"], "--channels 0: there must be at least 1"),
        (["--channels", "13"], "--channels 13: the recipe says 3"),
        (["--encoder", "runs/tiny"], "--encoder runs/tiny: a pre-training makes its encoder"),
    ],
)
def test_what_cannot_be_is_said(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refusal(["plan", "swin_base_192px_100ep", *given], capsys)


def test_the_table_says_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    from simmim.cli.app import app

    app(["plan", "tiny", "--gpu", "t4", "machine.micro_batch=7 images"], result_action="return_value")
    said = capsys.readouterr().out
    assert "As written it fits: one GPU, no checkpointing, fp32, 7 images at a time" in said
    assert "simmim pretrain tiny --data DATA --out RUN" in said
    assert "an assumption; give --images" in said


def test_the_beginning_of_a_name_is_enough_where_it_is_clear() -> None:
    assert config_of(recipe="swinv2_giant") == config_of(recipe="swinv2_giant_192px")
    with pytest.raises(ValueError, match="names that begin so: swin_large_192px_800ep, swin_large_800ep_ft224"):
        resolve("swin_large")


def test_cards_are_found_by_name() -> None:
    assert find_gpu("H200") is GPUS["h200"]
    assert find_gpu("v100") is GPUS["v100-32gb"]
