"""The pyramid: a pretrained backbone's stages, put together without any training.

The baseline that every trained run has to beat, in a minute or two: `selfseg.models.decoders.Pyramid` says what it is.
Its numbers are found before the first step, so a run of it has no steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.types import Batch, StepOutput


@dataclass(frozen=True)
class PyramidConfig:
    """Settings of the pyramid.

    Attributes:
        embedder: the network; its decoder is "pyramid".
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="tf_efficientnet_lite0", decoder="pyramid", frozen=True)
    )

    def __post_init__(self) -> None:
        if self.embedder.decoder != "pyramid" or self.embedder.correction or not self.embedder.frozen:
            raise ConfigError(
                "the method pyramid learns nothing: its embedder needs the decoder pyramid, no correction and a frozen "
                f"backbone, not {self.embedder}"
            )


class Pyramid(Method):
    """A frozen backbone with a fitted decoder."""

    Config = PyramidConfig

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)

    def views(self) -> RandomCrops:
        """Of no use to it."""
        return RandomCrops()

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """Raise ConfigError: there is nothing to train."""
        raise ConfigError("the pyramid has no training step; its recipe has steps=0")
