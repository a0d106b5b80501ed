"""What a run will take before anything is bought: parameters, FLOPs, memory, time. Trains nothing."""

from simmim.tasks.plan.machines import GPUS, Cluster, find_gpu
from simmim.tasks.plan.network import build_network
from simmim.tasks.plan.picture import draw_plan
from simmim.tasks.plan.search import Plan, make_plan
from simmim.tasks.plan.step import take_step
from simmim.tasks.plan.words import tell, to_json

__all__ = [
    "GPUS",
    "Cluster",
    "Plan",
    "build_network",
    "draw_plan",
    "find_gpu",
    "make_plan",
    "take_step",
    "tell",
    "to_json",
]
