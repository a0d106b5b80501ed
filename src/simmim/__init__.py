"""simmim: from a pile of unlabelled images to a vision backbone.

The public names; each is imported when it is first asked for, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simmim.parent import PARENT as _PARENT
from simmim.version import __version__

if TYPE_CHECKING:
    from simmim.engine.interruption import Interrupted
    from simmim.model import MaskedPrediction, SimMIM
    from simmim.tasks.catalogue import explain, list_recipes, resolve
    from simmim.tasks.embed import embed
    from simmim.tasks.evaluate import evaluate
    from simmim.tasks.export import export_weights
    from simmim.tasks.load import load, load_encoder
    from simmim.tasks.passport import import_weights
    from simmim.tasks.reconstruct import reconstruct
    from simmim.tasks.words import doctor, finetune, pretrain, probe
    from simmim.weights.adapt import Wanted

_PLACES = {
    "Interrupted": "simmim.engine.interruption",
    "MaskedPrediction": "simmim.model",
    "SimMIM": "simmim.model",
    "Wanted": "simmim.weights.adapt",
    "doctor": "simmim.tasks.words",
    "embed": "simmim.tasks.embed",
    "evaluate": "simmim.tasks.evaluate",
    "explain": "simmim.tasks.catalogue",
    "export_weights": "simmim.tasks.export",
    "finetune": "simmim.tasks.words",
    "import_weights": "simmim.tasks.passport",
    "list_recipes": "simmim.tasks.catalogue",
    "load": "simmim.tasks.load",
    "load_encoder": "simmim.tasks.load",
    "pretrain": "simmim.tasks.words",
    "probe": "simmim.tasks.words",
    "reconstruct": "simmim.tasks.reconstruct",
    "resolve": "simmim.tasks.catalogue",
}

__all__ = [
    "Interrupted",
    "MaskedPrediction",
    "SimMIM",
    "Wanted",
    "__version__",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "export_weights",
    "finetune",
    "import_weights",
    "list_recipes",
    "load",
    "load_encoder",
    "pretrain",
    "probe",
    "reconstruct",
    "resolve",
]


assert _PARENT > 0, "which process started this one is read before torch is imported"


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'simmim' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
