"""What a setting asks of a GPU: memory by kind, and seconds a step."""

from dataclasses import dataclass
from typing import NamedTuple

from simmim.encoders.layers import blocks_of
from simmim.tasks.plan.machines import START_SECONDS, Cluster
from simmim.tasks.plan.network import Network
from simmim.tasks.plan.pretend import KINDS
from simmim.tasks.plan.step import FORMATS, Step

_FULL, _SHORT = 4, 2
_ADAMW = 2 * _FULL  # a running mean and a running square, in float32
_BUCKET = 25 * 2**20  # bytes that DDP sends at a time
_CHEAP_AGAIN = 0.05  # what selective checkpointing computes again multiplies nothing, so it is not counted; assumed
_BLOCKS_GATHERED = 3  # FSDP: the one at work, the next on its way, and the buffer it arrives in
_BLOCKS_SCATTERED = 2  # the gradient of a block as it was computed, and as it is sent


class Setting(NamedTuple):
    """How a network is trained on some GPUs."""

    parallel: str
    """ "one" GPU, "ddp" (every GPU has all of the network) or "fsdp" (every GPU keeps its part of it)."""
    checkpointing: str
    precision: str
    micro_batch: int


class Memory(NamedTuple):
    """Bytes on a GPU at the moment when most are needed."""

    weights: float
    optimizer: float
    gradients: float
    copies: float
    """Weights in a shorter format; with FSDP, blocks that are gathered."""
    exchange: float
    """What is being sent to other GPUs."""
    activations: float

    @property
    def total(self) -> float:
        """All kinds together."""
        return sum(self)


@dataclass(frozen=True)
class Sizes:
    """How many numbers a network has, and where."""

    trainable: int
    frozen_bytes: int
    """Parameters that are not trained."""
    buffer_bytes: int
    blocks: int
    largest_block: int
    """Parameters of the largest block."""
    outside_blocks: int

    @classmethod
    def of(cls, network: Network) -> "Sizes":
        """Those of a network."""
        model = network.trained
        blocks = [sum(each.numel() for each in block.parameters()) for block in blocks_of(network.backbone)]
        trainable = sum(each.numel() for each in model.parameters() if each.requires_grad)
        frozen = sum(each.nbytes for each in model.parameters() if not each.requires_grad)
        buffers = sum(each.nbytes for each in model.buffers())
        return cls(trainable, frozen, buffers, len(blocks), max(blocks, default=0), trainable - sum(blocks))


def memory_of(sizes: Sizes, step: Step, setting: Setting, *, gpus: int, accumulation: int) -> Memory:
    """Memory of a GPU in a step after the first, when the optimizer has its state.

    Args:
        sizes: of the network.
        step: a micro batch of it, under the setting's checkpointing and precision.
        setting: the rest.
        gpus: how many share the work.
        accumulation: micro batches a step.
    """
    alive = step.alive(setting.micro_batch)
    gradients, copies, activations = (alive[:, KINDS.index(kind)] for kind in KINDS)
    trainable, sharded = sizes.trainable, setting.parallel == "fsdp"
    exchange = trainable * _FULL if setting.parallel == "ddp" else 0.0  # DDP's buckets lie beside the gradients
    if sharded:
        copies = copies * 0 + _gathered(sizes, setting, all_blocks=accumulation > 1)
        exchange = _BLOCKS_SCATTERED * _FULL * sizes.largest_block
    whole = trainable * _FULL
    if accumulation > 1:  # whole from the first micro batch on: FSDP sends them behind the last one
        gradients = gradients * 0 + whole + (whole / gpus if sharded else 0)
    elif sharded:
        gradients = gradients * 0 + whole / gpus
    moment = int((gradients + copies + activations).argmax())
    share = gpus if sharded else 1
    return Memory(
        weights=(whole + sizes.frozen_bytes) / share + sizes.buffer_bytes,
        optimizer=trainable * _ADAMW / share,
        gradients=float(gradients[moment]),
        copies=float(copies[moment]),
        exchange=float(exchange),
        activations=float(activations[moment]),
    )


def _gathered(sizes: Sizes, setting: Setting, *, all_blocks: bool) -> int:
    """Bytes of the weights that FSDP holds whole: some blocks, or between micro batches all, and what lies outside of them."""
    blocks = _BLOCKS_GATHERED * sizes.largest_block + (sizes.trainable - sizes.outside_blocks if all_blocks else 0)
    return _FULL * sizes.outside_blocks + _width(setting) * blocks


def _width(setting: Setting) -> int:
    """Bytes of a number in the network's format."""
    return _FULL if FORMATS[setting.precision] is None else _SHORT


def seconds_of(sizes: Sizes, step: Step, setting: Setting, cluster: Cluster, *, share: int) -> float:
    """Seconds of a training step.

    Computing takes its operations at the stated share of the peak rate. Gradients travel while the last micro batch goes
    backward, FSDP's weights while all of them are computed; what does not fit in there is waited for.

    Args:
        sizes: of the network.
        step: a micro batch of it, under the setting's checkpointing and precision.
        setting: how it is trained.
        cluster: on what.
        share: images a GPU and step.
    """
    rate = cluster.gpu.tflops[setting.precision] * 1e12 * cluster.utilisation
    flops = step.total
    computing = share * flops.both / rate * (1 + _CHEAP_AGAIN * (setting.checkpointing == "selective"))
    backward = min(setting.micro_batch, share) * flops.backward / rate
    part = (cluster.gpus - 1) / cluster.gpus
    gradients = part * sizes.trainable * _FULL / cluster.link
    if setting.parallel == "ddp":
        begun = (1 + sizes.trainable * _FULL // _BUCKET) * START_SECONDS
        return computing + max(begun, 2 * gradients - backward)
    if setting.parallel == "fsdp":
        # They stay whole from a backward pass to the next forward pass.
        gatherings = 1 + -(-share // setting.micro_batch)
        weights = gatherings * part * sizes.trainable * _width(setting) / cluster.link
        begun = (1 + gatherings) * sizes.blocks * START_SECONDS
        return computing + max(begun, gradients - backward, gradients + weights - computing)
    return computing
