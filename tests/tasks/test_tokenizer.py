"""A tokenizer of one's own, from images to the run that predicts its words."""

from pathlib import Path

import numpy as np
import pytest
import torch

import simmim
from simmim.engine.metrics import read_metrics
from simmim.targets import DiscreteVAE, VAEShape, load_tokenizer, save_tokenizer
from simmim.tasks.catalogue import resolve
from simmim.tasks.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tasks.support import complete, folder_of_pictures

pytestmark = pytest.mark.xdist_group("tokenizer")

QUICK = ["words=16", "stride=4 px", "width=8", "data.image_size=32 px", "batch=8 images", "output.progress=false"]
QUICK += [
    "optimizer.lr_for_batch=8 images",
    "schedule.duration=120 steps",
    "schedule.warmup=2 steps",
    "output.log_every=5 steps",
    "output.save_every=40 steps",
]
TINY = {
    "data.image_size": "32 px",
    "schedule.duration": "6 steps",
    "schedule.warmup": "1 steps",
    "output.log_every": "1 steps",
}


def _train(data: Path, out: Path, *words: str, resume: bool = False) -> Tokenizer:
    config = resolve("tokenizer", [*QUICK, *words], task="tokenizer", extra={"data.source": str(data)})
    assert isinstance(config, TokenizerConfig)
    return train_tokenizer(config, out=out, resume=resume)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_pictures(tmp_path_factory.mktemp("photos") / "photos", 16, height=40, width=40)


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return _train(photos, tmp_path_factory.mktemp("tokenizer") / "words.safetensors")


def test_it_learns_to_draw_and_uses_its_words(made: Tokenizer) -> None:
    rows = read_metrics(Path(made.file).with_suffix(".run") / "metrics.jsonl")
    assert rows[-1]["error"] < 0.8 * rows[0]["error"]
    assert made.words == 16
    assert 1.5 < made.used <= 16
    assert 0 < made.error < 0.5
    assert Path(made.picture).stat().st_size > 1000


def test_the_error_it_tells_is_that_of_the_file(made: Tokenizer, photos: Path) -> None:
    vae = load_tokenizer(Path(made.file))
    assert (vae.shape.channels, vae.shape.stride, vae.shape.words) == (3, 4, 16)
    images = torch.rand(2, 3, 32, 32)
    tokens = vae.tokens(images)
    assert tokens.shape == (2, 8, 8)
    assert vae.draw_tokens(tokens).shape == images.shape


def test_a_training_that_is_repeated_or_cut_gives_the_same_file(made: Tokenizer, photos: Path, tmp_path: Path) -> None:
    again = _train(photos, tmp_path / "words.safetensors")
    assert Path(again.file).read_bytes() == Path(made.file).read_bytes()
    newest = sorted((tmp_path / "words.run" / "checkpoints").glob("*.safetensors"))[-1]
    newest.unlink()
    Path(again.file).unlink()
    kept = _train(photos, tmp_path / "words.safetensors", "output.keep=3", resume=True)
    assert Path(kept.file).read_bytes() == Path(made.file).read_bytes()


def test_a_run_predicts_its_words_and_draws_them(made: Tokenizer, photos: Path, tmp_path: Path) -> None:
    settings = {**TINY, "target.kind": "tokens", "target.weights": made.file}
    run = simmim.pretrain("tiny", data=photos, out=tmp_path / "run", settings=settings)
    rows = read_metrics(run.metrics)
    assert rows[-1]["loss"] < rows[0]["loss"]
    state = simmim.load(run.path).state_dict()
    assert not any("vae" in name for name in state)
    (drawn,) = simmim.reconstruct(run.path, [str(photos / "0000.png")], out=tmp_path / "drawn")
    assert Path(drawn.picture).is_file()


def test_without_a_decoder_a_run_draws_what_it_was_shown_and_no_prediction(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = VAEShape(channels=3, words=8, width=8, blocks=1, groups=3, has_decoder=False)
    save_tokenizer(tmp_path / "half.safetensors", DiscreteVAE(shape))
    settings = {**TINY, "target.kind": "tokens", "target.weights": str(tmp_path / "half.safetensors")}
    run = simmim.pretrain("tiny", data=photos, out=tmp_path / "run", settings=settings)
    assert list(run.pictures.glob("*.png"))
    with pytest.raises(ValueError, match="has no decoder"):
        simmim.load(run.path).reconstruct(torch.zeros(1, 3, 32, 32), torch.ones(1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("channels", [1, 13])
def test_any_number_of_channels(channels: int, tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    generator = np.random.default_rng(0)
    for number in range(8):
        array = generator.integers(0, 65535, (32, 32, channels), dtype=np.uint16)
        np.save(tmp_path / "arrays" / f"{number}.npy", array)
    made = _train(
        tmp_path / "arrays", tmp_path / "words.safetensors", "schedule.duration=2 steps", "schedule.warmup=1 steps"
    )
    assert load_tokenizer(Path(made.file)).shape.channels == channels


@pytest.mark.parametrize(
    ("out", "words", "said"),
    [
        ("words.pt", (), "is a .safetensors file; nearest: .*words.safetensors"),
        ("words.safetensors", ("stride=12 px",), "no power of 2; nearest: (8|16) px"),
        ("words.safetensors", ("stride=64 px",), "nearest: 64"),
    ],
)
def test_what_does_not_fit_is_said(out: str, words: tuple[str, ...], said: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        _train(photos, tmp_path / out, *words)


def test_the_verb_says_what_to_type_next(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.safetensors"
    said = complete("tokenizer", str(photos), "--out", str(out), *QUICK, "schedule.duration=3 steps").stdout
    assert "words in use" in said
    assert f"target.weights={out}" in said
