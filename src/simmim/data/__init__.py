"""Where images come from: sources, decoding, views, batches, and what is wrong with the files.

    open_source ──► Source ──► Samples ──► TrainingLoader ──► step ──► Batch
                      │           ▲
                  ImageFile     View

A source lists images and opens them; samples show them under a view, the same way for the same seed, epoch and index;
the loader follows an order that is a function of seed and epoch. Pixels stay uint8 up to the device.
"""

from simmim.data.augment import Appearance, AugmentConfig, BatchAugment, RandAugment
from simmim.data.decode import SUFFIXES, open_image
from simmim.data.digits import Digits
from simmim.data.files import Files, Paths
from simmim.data.image import MAX_PIXELS, ImageFile, UnreadableImage
from simmim.data.listing import LIST_SUFFIXES
from simmim.data.loader import TrainingBatches, TrainingLoader, evaluation_batches, order
from simmim.data.quarantine import Quarantine
from simmim.data.samples import NO_LABEL, Batch, Sample, SampleKey, Samples, collate
from simmim.data.settings import AnyView, DataConfig, LabelledDataConfig
from simmim.data.source import Source, open_source, splits_of
from simmim.data.statistics import Statistics, measure
from simmim.data.subset import Subset, choose_labels, hold_out
from simmim.data.transforms import Box, CentreCrop, RandomCrop, View, render

__all__ = [
    "LIST_SUFFIXES",
    "MAX_PIXELS",
    "NO_LABEL",
    "SUFFIXES",
    "AnyView",
    "Appearance",
    "AugmentConfig",
    "Batch",
    "BatchAugment",
    "Box",
    "CentreCrop",
    "DataConfig",
    "Digits",
    "Files",
    "ImageFile",
    "LabelledDataConfig",
    "Paths",
    "Quarantine",
    "RandAugment",
    "RandomCrop",
    "Sample",
    "SampleKey",
    "Samples",
    "Source",
    "Statistics",
    "Subset",
    "TrainingBatches",
    "TrainingLoader",
    "UnreadableImage",
    "View",
    "choose_labels",
    "collate",
    "evaluation_batches",
    "hold_out",
    "measure",
    "open_image",
    "open_source",
    "order",
    "render",
    "splits_of",
]
