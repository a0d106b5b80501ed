"""A training step without numbers: every operation runs on shapes alone, and is written into a ledger.

Floating-point tensors lie on the meta device, where they have a shape and no values. Whole numbers and truth values (masks,
places of tokens) stay real, so that code which asks "how many are visible?" gets its answer. The ledger knows of every
storage when it is made, when it is freed and what it is for, and counts what operations multiply by PyTorch's own formulas.
"""

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

Kind = Literal["gradients", "copies", "activations"]
KINDS: tuple[Kind, ...] = ("gradients", "copies", "activations")
"""What is alive in a step beside weights and optimizer: gradients of weights; weights in the network's number format, where
that is not their own; and all else, what the backward pass will need and what operations are just working on."""
MANY = 53
"""Images of a pretended step: a prime, so that a size which is a multiple of it belongs to images, and no other does."""

_META = torch.device("meta")
_aten: Any = torch.ops.aten
_FUSED_BACKWARD = (
    _aten._scaled_dot_product_efficient_attention_backward,
    _aten._scaled_dot_product_flash_attention_backward,
)
_WITHOUT_SCORES = (
    4 / 5
)  # of its five products a fused kernel makes one only because it kept no scores; the network has four


class _Entry(NamedTuple):
    kind: Kind
    size: int
    per_image: bool


class Ledger(TorchDispatchMode):
    """Watches a training step on shapes.

    Args:
        parts: the name of the part that each parameter belongs to; operations are counted for the part whose parameter
            was the last to be touched.
        images: how many images the step has.
    """

    def __init__(self, parts: Mapping[Any, str] | None = None, *, images: int = MANY) -> None:
        super().__init__()
        self.moments: list[tuple[int, ...]] = []
        """Behind every operation, bytes alive by kind: first of what does not depend on the number of images, then of what
        does."""
        self.flops: dict[tuple[str, str], int] = {}
        """By part and pass ("forward" or "backward")."""
        self.passing = "forward"
        self._images = images
        self._part = next(iter((parts or {}).values()), "")
        self._alive = [0] * (2 * len(KINDS))
        self._entries: dict[int, _Entry] = {}
        self._watches: dict[int, weakref.ref[Any]] = {}
        self._parts = {_key(tensor): part for tensor, part in (parts or {}).items()}
        self._left_out = set(self._parts)

    def leave_out(self, *tensors: Tensor) -> None:
        """Leave tensors out of the account that are counted elsewhere, such as buffers."""
        self._left_out.update(map(_key, tensors))

    def file(self, tensor: Tensor, kind: Kind) -> None:
        """Say what a tensor is that was taken for an activation."""
        key = _key(tensor)
        if key in self._entries:
            self._book(self._entries[key], -1)
            self._entries[key] = self._entries[key]._replace(kind=kind)
            self._book(self._entries[key], 1)
            if kind == "copies":
                self._parts[key] = self._part  # that of the weight, which was touched a moment ago

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation on shapes, and write it down."""
        kwargs = kwargs or {}
        given = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
        for tensor in given:
            self._part = self._parts.get(_key(tensor), self._part)
        result = _run(func, args, kwargs, given)
        self._count(func, args, kwargs, result)
        for tensor in _tensors(result):
            self._watch(tensor)
        self.moments.append(tuple(self._alive))
        return result

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        formula = cast("Callable[..., int] | None", flop_registry.get(func._overloadpacket))
        if formula is None:
            return
        number = formula(*args, **kwargs, out_val=result)
        if func._overloadpacket in _FUSED_BACKWARD:
            number = round(number * _WITHOUT_SCORES)
        key = (self._part, self.passing)
        self.flops[key] = self.flops.get(key, 0) + number

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _key(tensor)
        if key in self._left_out or key in self._watches:
            return
        size = storage.nbytes()
        self._entries[key] = _Entry("activations", size, per_image=tensor.numel() % self._images == 0)
        self._book(self._entries[key], 1)
        self._watches[key] = weakref.ref(storage, lambda _: self._forget(key))

    def _forget(self, key: int) -> None:
        self._book(self._entries.pop(key), -1)
        del self._watches[key]
        self._parts.pop(key, None)

    def _book(self, entry: _Entry, sign: int) -> None:
        place = KINDS.index(entry.kind) + (len(KINDS) if entry.per_image else 0)
        self._alive[place] += sign * entry.size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage] - its address, by which torch knows it


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among the inputs or results of an operation."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in cast("tuple[Any, ...]", value):
            yield from _tensors(each)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
    """On shapes where a shape is among the inputs, on numbers where all inputs are numbers."""
    if any(tensor.is_meta for tensor in given):
        if not all(tensor.is_meta for tensor in given):
            args, kwargs = tree_map_only(Tensor, _without_values, (args, kwargs))
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _META}
        return _again(func, args, kwargs) if _makes_new(func) else func(*args, **kwargs)
    if kwargs.get("device") != _META:
        return func(*args, **kwargs)
    shape = func(*tree_map_only(Tensor, _without_values, args), **kwargs)
    if isinstance(shape, Tensor) and shape.dtype.is_floating_point:
        return shape
    return func(*args, **{**kwargs, "device": torch.device("cpu")})


def _without_values(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else _empty(*_shape(tensor))


# ------------------------------------------------------------------------------------------ the same operation once more

_results: dict[Any, tuple[bool, list[Any]]] = {}
"""What operations made of shapes before: blocks are alike, and to find a shape takes PyTorch longer than to remember it."""


@functools.cache
def _makes_new(func: Any) -> bool:
    """Whether an operation gives new tensors, rather than views of its inputs or changed inputs."""
    schema = func._schema
    return all(each.alias_info is None for each in (*schema.arguments, *schema.returns))


def _again(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    key = (func, _described(args), tuple(kwargs), _described(tuple(kwargs.values())))
    if key not in _results:
        made = func(*args, **kwargs)
        several = isinstance(made, tuple | list)
        results = list(cast("tuple[Any, ...]", made)) if several else [made]
        if all(result is None or isinstance(result, Tensor) for result in results):
            _results[key] = several, [None if result is None else _shape(result) for result in results]
        return made
    several, shapes = _results[key]
    again = [None if shape is None else _empty(*shape) for shape in shapes]
    return tuple(again) if several else again[0]


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _shape(value)
    if isinstance(value, tuple | list):
        return tuple(map(_described, cast("tuple[Any, ...]", value)))
    return type(value), value


def _shape(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype]:
    return tensor.size(), tensor.stride(), tensor.dtype


def _empty(size: torch.Size, stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device=_META)
