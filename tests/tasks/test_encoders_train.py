"""Every kind of encoder, number format and the compiler train, on tiny settings."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open

import simmim
from tasks.support import complete, losses, rows

pytestmark = pytest.mark.xdist_group("encoders")

QUICK: dict[str, Any] = {
    "schedule.duration": "3 steps",
    "schedule.warmup": "0 steps",
    "output.log_every": "1 steps",
    "output.progress": False,
    "output.pictures": 1,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "swin": {"kind": "swin", "patch_size": 4, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4], "window": 4},
    "swinv2": {"kind": "swinv2", "patch_size": 4, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4], "window": 4},
    "beit": {"kind": "beit", "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2},
    "vit": {"kind": "vit", "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2},
    "timm": {
        "kind": "timm",
        "name": "deit_tiny_patch16_224",
        "arguments": {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2},
    },
}


@pytest.mark.parametrize("kind", list(ENCODERS))
def test_every_kind_of_encoder_trains_and_leaves_weights_that_plain_timm_takes(
    kind: str, pictures: Path, tmp_path: Path
) -> None:
    settings = {**QUICK, "encoder": ENCODERS[kind]}
    run = simmim.pretrain("tiny", data=pictures, out=tmp_path / "run", settings=settings).path
    found = losses(run)
    assert len(found) == 3
    assert np.isfinite(found).all()
    assert found[-1] < found[0]
    with safe_open(run / "encoder.safetensors", framework="pt") as file:
        words = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = timm.create_model(words["architecture"], pretrained=False, **json.loads(words["arguments"])).eval()
    model.load_state_dict(weights, strict=True)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loaded = simmim.load(run)
    with torch.no_grad():
        expected = model.forward_features(images)
        ours = loaded.encoder(images)
    expected = (
        expected[:, 1:].transpose(1, 2).reshape(ours.shape) if expected.ndim == 3 else expected.permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():  # as somebody may who only wants to look
        assert torch.equal(simmim.load(run).encoder(images), ours)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_shorter_number_format_learns_as_the_long_one_does(
    precision: str, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {**QUICK, "schedule.duration": "24 steps", "schedule.warmup": "3 steps"}
    found: dict[str, list[float]] = {}
    for name in ("fp32", precision):
        run = simmim.pretrain(
            "tiny", data=pictures, out=tmp_path / name, settings={**settings, "machine.precision": name}
        ).path
        found[name] = losses(run)
        assert rows(run)[-1]["skipped_steps"] <= 2  # fp16 may look for its scale
    assert ("fp16 is for GPUs" in caplog.text) == (precision == "fp16" and not torch.cuda.is_available())
    assert np.isfinite(found[precision]).all()
    assert found[precision] != found["fp32"], "the format changed nothing, so it was not used"
    assert found[precision] == pytest.approx(found["fp32"], rel=0.05)
    assert np.mean(found[precision][-4:]) < np.mean(found[precision][:4])


@pytest.mark.parametrize("encoder", ["vit", "swin"])
def test_a_compiled_network_gives_the_same_losses(encoder: str, pictures: Path, tmp_path: Path) -> None:
    """With blocks that see visible tokens only, of which every batch has another number, judged and drawn on the way."""
    assert shutil.which("g++") or shutil.which("clang++"), "this machine has no C++ compiler; install g++"
    words = [
        "pretrain",
        "tiny",
        "--data",
        str(pictures),
        "seed=2",
        "schedule.duration=5 steps",
        "schedule.warmup=1 steps",
    ]
    words += ["output.log_every=1 steps", "output.evaluate_every=2 steps", "batch=8 images"]
    words += ["masking={kind: block, mask_patch: 16, exact: false}" if encoder == "vit" else "masking.mask_patch=8 px"]
    words += [f"encoder={json.dumps({**ENCODERS[encoder], 'visible_blocks': 1})}"]
    for name, compiled in (("plain", "false"), ("compiled", "true")):
        done = complete(
            *words,
            f"machine.compile={compiled}",
            *("--out", str(tmp_path / name)),
            TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"),
            TORCH_LOGS="graph_breaks",
        )
        assert "graph_breaks" not in done.stderr, done.stderr
    plain, compiled_losses = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    assert len(plain) == 5
    assert compiled_losses == pytest.approx(plain, rel=1e-4)
    assert list((tmp_path / "inductor").rglob("*.so")), "nothing was compiled"
