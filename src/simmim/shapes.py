"""The tensors that travel between the parts, by name. Annotations only; the tests check them at run time."""

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""Normalised images."""

RawImages = Shaped[Tensor, "batch channels height width"]
"""Images as they left the decoder: uint8 in 0..255, or float."""

Tokens = Float[Tensor, "batch grid_h grid_w embed_dim"]
"""Patch embeddings, one vector a model patch."""

Mask = Bool[Tensor, "batch grid_h grid_w"]
"""True where a token is hidden."""

GivenMask = Shaped[Tensor, "batch rows columns"]
"""A mask as others write it: true or not 0 where something is hidden, one value a token or a cell of several."""

Cells = Bool[Tensor, "batch rows columns"]
"""True where a cell of a mask strategy is hidden, or a cell of the feature map is wanted."""

PixelMask = Bool[Tensor, "batch height width"]
"""True where a pixel, or a cell of a target, is hidden."""

Features = Float[Tensor, "batch num_features map_h map_w"]
"""What the encoder says of the image: a map of `num_features` channels."""

Prediction = Float[Tensor, "batch channels cells_h cells_w"]
"""The head's answer, at the target's channels and stride."""

SquareMaps = Shaped[Tensor, "squares depth rows columns"]
"""Maps of some squares of a batch, one after the other."""

Originals = Float[Tensor, "batch bands height width"]
"""Normalised images beside a prediction whose channels are others."""

Shown = Float[Tensor, "batch bands cells_h cells_w"]
"""A prediction turned back into colours, at the target's stride."""

TargetMap = Shaped[Tensor, "batch ..."]
"""What should be predicted: values (batch, channels, cells_h, cells_w), or class numbers (batch, groups, cells_h, cells_w)."""
