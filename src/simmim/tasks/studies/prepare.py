"""Files that the targets of a study need, made once from its own images."""

from pathlib import Path

from simmim.tasks.catalogue import resolve
from simmim.tasks.palette import fit_palette
from simmim.tasks.studies.study import Study
from simmim.tasks.tokenizer import TokenizerConfig, train_tokenizer


def prepare(study: Study, *, data: str | Path, out: Path) -> None:
    """Make what is not there yet: a file put there by hand, such as iGPT's palette, is taken as it is."""
    wanted = study.prepare
    if wanted.palette is not None and not (out / "palette.npy").exists():
        fit_palette(data, out=out / "palette.npy", colours=wanted.palette)
    if wanted.tokenizer is not None and not (out / "tokenizer.safetensors").exists():
        extra = {**wanted.tokenizer, "data.source": str(data), "output.progress": False}
        config = resolve("tokenizer", task="tokenizer", extra=extra)
        assert isinstance(config, TokenizerConfig)
        train_tokenizer(config, out=out / "tokenizer.safetensors", resume=True)
