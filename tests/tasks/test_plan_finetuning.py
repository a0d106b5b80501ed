"""The plan of a fine-tuning is what a real step of it takes; its encoder is a run, or a recipe that will make one."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reference.memory import peak_bytes
from simmim.data import Statistics
from simmim.encoders import checkpoint_blocks
from simmim.tasks.catalogue import resolve
from simmim.tasks.classifier import Classifier, build_classifier
from simmim.tasks.finetune import FinetuneConfig
from simmim.tasks.plan import GPUS, Cluster, Plan, build_network, make_plan, take_step
from simmim.tasks.plan.network import Network
from simmim.tasks.pretrain import PretrainConfig, about_encoder, build_model
from simmim.weights import save_encoder
from tasks.support import refusal

IMAGES = 3
STATISTICS = Statistics(3, (0.5,) * 3, (0.25,) * 3)
FINETUNED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "BEiT's ViT": ("vit_base_800ep_ft224", "{kind: beit, embed_dim: 96, num_heads: 3}", ("data.image_size=96 px",)),
    "Swin": (
        "swin_base_192px_100ep_ft224",
        "{kind: swin, name: swin_tiny_patch4_window7_224, window: 4}",
        ("data.image_size=96 px", "window=3"),
    ),
    "SwinV2": (
        "swinv2_base_800ep_ft224",
        "{kind: swinv2, name: swinv2_tiny_window8_256, window: 4}",
        ("data.image_size=128 px", "window=4", "ema=0.999"),
    ),
}


class Finetuning(NamedTuple):
    recipe: str
    config: FinetuneConfig
    before: Path
    """The recipe of the pre-training."""
    network: Network


@pytest.fixture
def finetuning(request: pytest.FixtureRequest, tmp_path: Path) -> Finetuning:
    recipe, encoder, settings = FINETUNED[request.param]
    before = tmp_path / "before.yaml"
    data = "{image_size: 128 px, channels: null, mean: null, std: null}"
    before.write_text(f"base: swin_base_192px_100ep\ndata: {data}\nencoder: {encoder}\n", encoding="utf-8")
    config = resolve(recipe, settings, task="finetune")
    assert isinstance(config, FinetuneConfig)
    return Finetuning(recipe, config, before, build_network(config, encoder=before, classes=10))


ALL_FINETUNED = pytest.mark.parametrize("finetuning", FINETUNED, indirect=True)
SWINV2_FINETUNED = pytest.mark.parametrize("finetuning", ["SwinV2"], indirect=True)


def pretraining(finetuning: Finetuning) -> PretrainConfig:
    config = resolve(finetuning.before, task="pretrain")
    assert isinstance(config, PretrainConfig)
    return config


@pytest.mark.parametrize("checkpointing", ["none", "blocks"])
@ALL_FINETUNED
def test_a_plan_of_a_finetuning_is_that_of_a_real_step(finetuning: Finetuning, checkpointing: str) -> None:
    config, network = finetuning.config, finetuning.network
    predicted = take_step(network, checkpointing=checkpointing, precision="fp32", fused=False)
    before = pretraining(finetuning)
    about = about_encoder(before, build_model(before, STATISTICS), STATISTICS)
    size = config.data.image_size
    assert size is not None
    backbone: Any = build_classifier(
        about, None, classes=10, drop_path=config.drop_path, image_size=size, window=config.window
    ).backbone
    model = Classifier(backbone, label_smoothing=config.label_smoothing, ema=config.ema).train()
    checkpoint_blocks(backbone, "blocks" if checkpointing == "blocks" else "none")
    images, shares = torch.randn(IMAGES, 3, *size), torch.full((IMAGES, 10), 0.1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images, shares).loss.backward()
    assert predicted.total.both * IMAGES == pytest.approx(counter.get_total_flops(), rel=0.01)
    model.zero_grad(set_to_none=True)
    peak = peak_bytes(lambda: model(images, shares).loss.backward())
    assert predicted.alive(IMAGES).sum(axis=1).max() == pytest.approx(peak, rel=0.15)
    counted = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert sum(network.parameters_by_part().values()) == counted
    assert network.parameters_by_part()["head"] == 10 * (backbone.num_features + 1)


def plan_finetuning(finetuning: Finetuning, gpus: int, **more: Any) -> Plan:
    wanted: dict[str, Any] = {"config": finetuning.config, "encoder": finetuning.before, **more}
    config = wanted.pop("config")
    return make_plan(config, Cluster(GPUS["h100"], gpus), recipe=finetuning.recipe, **wanted)


@SWINV2_FINETUNED
def test_a_running_average_takes_another_copy_of_the_weights(finetuning: Finetuning) -> None:
    without_average = finetuning.config.model_copy(update={"ema": None})
    average, without = (plan_finetuning(finetuning, 4, **more) for more in ({}, {"config": without_average}))
    weights = 4 * sum(average.parameters.values())
    for one, other in zip(average.options, without.options, strict=True):
        share = 4 if one.setting.parallel == "fsdp" else 1
        assert one.memory.weights - other.memory.weights == pytest.approx(weights / share, rel=0.02)


@SWINV2_FINETUNED
def test_the_encoder_of_a_finetuning_is_a_recipe_or_a_run(finetuning: Finetuning, tmp_path: Path) -> None:
    before = pretraining(finetuning)
    model = build_model(before, STATISTICS)
    run = tmp_path / "run"
    run.mkdir()
    save_encoder(run / "encoder.safetensors", model.encoder.backbone, about_encoder(before, model, STATISTICS))
    planned = [plan_finetuning(finetuning, 1, encoder=each) for each in (finetuning.before, run)]
    assert planned[0].flops == planned[1].flops
    assert planned[0].parameters == planned[1].parameters
    plain = model.encoder.backbone.parameters()
    assert planned[0].backbone_parameters == sum(each.numel() for each in plain)
    said = [plan.command(plan.as_written) for plan in planned if plan.as_written is not None]
    assert "simmim finetune PRETRAINED swinv2_base_800ep_ft224 --data DATA --out RUN" in said[0]
    assert f"simmim finetune {run} swinv2_base_800ep_ft224 --data DATA --out RUN" in said[1]
    with pytest.raises(ValueError, match=r"--channels 4: the encoder of .* takes images of 3"):
        build_network(finetuning.config, channels=4, encoder=run)
    assert build_network(finetuning.config, channels=4, encoder=finetuning.before).channels == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tokenizer"], "recipe tokenizer is for tokenizer; a plan is made of a pretrain or a finetune recipe"),
        (["finetune"], "a fine-tuning begins with an encoder: give --encoder RUN, or the recipe of its pre-training"),
        (["finetune", "--encoder", "tinny"], "no such recipe of a pre-training; did you mean 'tiny'?"),
        (["finetune", "--encoder", "finetune"], "recipe finetune is for finetune, not for pretrain"),
        (["finetune", "--encoder", "tiny", "--classes", "1"], "--classes 1: there must be at least 2"),
        (["finetune", "--encoder", "swin_base_192px_100ep", "data.image_size=208 px"], "set window=6"),
    ],
)
def test_what_a_finetuning_lacks_is_said(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refusal(["plan", *given], capsys)
