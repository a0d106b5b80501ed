"""Every recipe that comes with simmim."""

from pathlib import Path

import pytest
import torch

import simmim
from simmim.config import load, read_yaml, recipe_names, write_yaml
from simmim.data import Statistics
from simmim.engine.optimizer import OptimizerConfig
from simmim.engine.schedule import Schedule
from simmim.tasks.catalogue import TASKS, RecipeSummary, explain, list_recipes, resolve
from simmim.tasks.pretrain import PretrainConfig, build_model
from simmim.tasks.training import build_schedule

SHIPPED = sorted((Path(simmim.__file__).parent / "recipes").glob("*.yaml"))
NAMES = [path.stem for path in SHIPPED]
OFFICIAL = [
    "swin_base_192px_100ep",
    "swin_base_192px_800ep",
    "swin_large_192px_800ep",
    "swinv2_base_192px_800ep",
    "vit_base_224px_800ep",
]
IMAGENET_IMAGES = 1_281_167


def _model(name: str) -> simmim.SimMIM:
    config = resolve(name)
    assert isinstance(config, PretrainConfig)
    with torch.device("meta"):
        return build_model(config, Statistics(3, (0.5,) * 3, (0.25,) * 3, 0))


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_shipped_file_is_listed() -> None:
    assert recipe_names() == NAMES == [summary.name for summary in list_recipes()]
    assert set(OFFICIAL) < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_written_complete_and_read_as_the_same_object(name: str) -> None:
    config = resolve(name)
    again = load(type(config), read_yaml(write_yaml(config)))
    assert again == config
    assert write_yaml(again) == write_yaml(config)


@pytest.mark.parametrize("summary", list_recipes(), ids=lambda summary: summary.name)
def test_a_recipe_says_what_it_is_what_it_reproduces_and_the_command(summary: RecipeSummary) -> None:
    assert summary.summary
    assert summary.task in TASKS
    assert summary.notes["reproduces"]
    assert summary.notes["command"].split("simmim ", 1)[1]


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(resolve(name), PretrainConfig)])
def test_the_model_of_a_recipe_can_be_built_and_its_masks_drawn(name: str) -> None:
    config = resolve(name)
    assert isinstance(config, PretrainConfig)
    encoder = _model(name).encoder
    mask = config.masking(
        2, image_size=config.data.image_size, patch_size=encoder.patch_size, generator=torch.Generator().manual_seed(0)
    )
    assert mask.shape[1:] == tuple(side // encoder.patch_size for side in config.data.image_size)


def test_swin_base_has_the_published_number_of_parameters() -> None:
    assert _parameters(_model("swin_base_192px_100ep")) == 89_874_104


def test_swin_large_has_the_published_number_of_parameters() -> None:
    assert round(_parameters(_model("swin_large_192px_800ep")) / 1e6, 2) == 199.88


def test_vit_base_has_the_published_number_of_parameters() -> None:
    model = _model("vit_base_224px_800ep")
    assert round(_parameters(model.encoder) / 1e6, 2) == 85.67
    assert round(_parameters(model) / 1e6, 2) == 86.26


@pytest.mark.parametrize("name", ["swin_base_192px_100ep", "swin_base_192px_800ep"])
def test_swin_base_has_window_6_in_every_stage(name: str) -> None:
    tables = [tuple(p.shape) for n, p in _model(name).named_parameters() if n.endswith("relative_position_bias_table")]
    assert tables == [(121, heads) for heads, blocks in ((4, 2), (8, 2), (16, 18), (32, 2)) for _ in range(blocks)]


def test_swin_large_has_window_12_but_6_in_its_last_stage() -> None:
    model = _model("swin_large_192px_800ep")
    tables = [p.shape[0] for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")]
    assert tables == [529] * 22 + [121] * 2


def test_vit_base_has_one_shared_position_bias_and_no_absolute_positions() -> None:
    names = dict(_model("vit_base_224px_800ep").encoder.named_parameters())
    tables = {name: tuple(p.shape) for name, p in names.items() if "relative_position_bias_table" in name}
    assert tables == {"backbone.rel_pos_bias.relative_position_bias_table": (732, 12)}
    assert not any("pos_embed" in name for name in names)
    assert sum(name.endswith(("gamma_1", "gamma_2")) for name in names) == 24


def _schedule(name: str) -> tuple[OptimizerConfig, Schedule]:
    config = resolve(name)
    return config.optimizer, build_schedule(config, images=IMAGENET_IMAGES)


@pytest.mark.parametrize(
    ("name", "peak", "start", "epochs"),
    [
        ("swin_base_192px_100ep", 8e-4, 4e-6, 100),
        ("swin_base_192px_800ep", 4e-4, 2e-6, 800),
        ("swin_large_192px_800ep", 4e-4, 2e-6, 800),
        ("vit_base_224px_800ep", 4e-4, 2e-6, 800),
        ("swinv2_base_192px_800ep", 4e-4, 2e-6, 800),
        ("swinv2_huge_192px_800ep", 4e-4, 2e-6, 800),
    ],
)
def test_an_official_recipe_has_the_published_learning_rates(name: str, peak: float, start: float, epochs: int) -> None:
    optimizer, schedule = _schedule(name)
    assert schedule.steps_per_epoch == 625
    assert schedule.total_steps == epochs * 625
    assert schedule.warmup_steps == 10 * 625
    assert schedule.lr(0) == pytest.approx(start)
    assert (optimizer.weight_decay, optimizer.betas, optimizer.eps, optimizer.clip_norm) == (
        0.05,
        (0.9, 0.999),
        1e-8,
        5.0,
    )
    if epochs == 100:
        assert schedule.lr(6250) == pytest.approx(4e-5 + (peak - 4e-5) * 0.97553, rel=1e-5)
        assert schedule.lr(schedule.total_steps) == pytest.approx(4e-5)
    else:
        assert schedule.lr(6250) == schedule.lr(700 * 625 - 1) == pytest.approx(peak)
        assert schedule.lr(700 * 625) == schedule.lr(800 * 625 - 1) == pytest.approx(peak / 10)


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_recipe_masks_and_augments_as_published(name: str) -> None:
    config = resolve(name)
    assert isinstance(config, PretrainConfig)
    assert config.masking.model_dump() == {"kind": "random", "ratio": 0.6, "mask_patch": "32 px"}
    assert config.data.mean == (0.485, 0.456, 0.406)
    assert config.data.std == (0.229, 0.224, 0.225)
    view = config.data.view.model_dump()
    assert view == {"kind": "random_crop", "scale": (0.67, 1.0), "ratio": (0.75, pytest.approx(4 / 3)), "flip": True}
    assert config.encoder.drop_path == (0.1 if name.startswith(("vit", "swinv2")) else 0.0)
    assert (config.batch, config.scored) == (2048, "hidden")


def test_swinv2_predicts_pixels_normalised_in_windows_of_47() -> None:
    config = resolve("swinv2_base_192px_800ep")
    assert isinstance(config, PretrainConfig)
    assert config.target.model_dump() == {"kind": "local_pixels", "window": "47 px", "distance": "l1"}
    windows = [
        block.window_size
        for layer in _model("swinv2_base_192px_800ep").encoder.backbone.layers
        for block in layer.blocks
    ]
    assert windows == [(12, 12)] * 22 + [(6, 6)] * 2


def test_the_giant_is_trained_as_published() -> None:
    config = resolve("swinv2_giant_192px")
    schedule = build_schedule(config, images=70_000_000)
    assert (schedule.total_steps, schedule.warmup_steps) == (20 * (70_000_000 // 9216), 30_000)
    assert schedule.lr(30_000) == pytest.approx(1.4e-3)
    assert (config.batch, config.optimizer.weight_decay, config.optimizer.clip_norm) == (9216, 0.1, 100.0)


def test_an_explanation_names_the_limits_and_the_default() -> None:
    ratio = explain("masking.ratio")[0]  # that of the default kind
    assert ratio.default == "0.6"
    assert ratio.allowed.endswith("> 0 < 1")
    assert ratio.description == "Share of the cells that are hidden, between 0 and 1."


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_is_described(task: str) -> None:
    assert [item.path for item in explain("", task=task) if not item.description] == []
