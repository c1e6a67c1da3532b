"""The product: an image to a dense embedding, one vector per pixel."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfseg.errors import CheckpointError, ConfigError
from selfseg.models.backbones import cell_centres, freeze, is_vit, make_backbone
from selfseg.models.decoders import Projector, Pyramid, make_decoder, move_cells
from selfseg.models.embedder_config import FORMAT, check_sizes, facts_of, read_config
from selfseg.models.embedder_config import EmbedderConfig as EmbedderConfig
from selfseg.models.embedder_config import Looks as Looks
from selfseg.models.inputs.groups import ChannelGroups, Group
from selfseg.models.inputs.preparing import as_batch, prepare_image
from selfseg.models.inputs.widening import expected_levels, widen
from selfseg.models.start import Colours, load_backbone
from selfseg.ops.phases import in_phase
from selfseg.ops.regions.smoothing import STRIDE as SMOOTHED_STRIDE
from selfseg.ops.regions.smoothing import smooth_batch
from selfseg.sharing.card import Network
from selfseg.sharing.model import Shareable
from selfseg.showing import card, facts, in_line
from selfseg.storage.files import write_json
from selfseg.storage.tensors import read_tensors, write_tensors
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD


class Embedder(Shareable, nn.Module):
    """Turns an image into a dense embedding; a plain module, which normalises images itself.

    Attributes:
        config: what it is made of.
        dim: D, the length of a pixel's vector.
        stride: pixels of the input for each cell of the embedding.
        normalised: always True: every pixel's vector has unit length.
        start: what the backbone's weights began from; "" if that isn't known.
        learned_with: the recipe of the run that it was loaded from, in words; "" if that isn't known.
        looks: how often `embed` looks at an image, see `Looks`; once by default.
        window: side in px of the windows that large images are looked at in, see `EmbedderConfig`.
        resolution: short side in px that `embed` resizes to, or None.

    Example:
        >>> embedder = Embedder(EmbedderConfig(dim=8, output_stride=32)).eval()
        >>> embedder(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 8, 16, 24])
    """

    mean: Tensor
    std: Tensor

    _KIND = "embedder"
    _FILES: ClassVar[tuple[str, ...]] = ("embedder.json", "weights.safetensors")

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.config = config
        self.resolution = config.resolution
        self.normalised = True
        self.start = self.learned_with = ""
        self.looks = Looks()
        self.window = config.side
        self.superpixels: int | None = None  # px between those that smooth, where windows shall have the same ones
        self.backbone = self._make_backbone(config.inputs, config.groups)
        info = cast(Any, self.backbone.feature_info)
        channels, strides = list(info.channels()), list(info.reduction())
        if config.decoder == "deeplabv3plus" and strides[-4:][0] != 4:
            raise ConfigError(
                f"the decoder deeplabv3plus needs stages of stride 4 and more, {config.backbone} has "
                f"{', '.join(map(str, strides))}; choose a ResNet, or the decoder linear or projector"
            )
        self.strides = strides
        if config.border % max(strides):
            raise ConfigError(f"border is a multiple of the largest stride, {max(strides)} px, not {config.border}")
        centres = cell_centres(self.backbone) if config.aligned else {}
        # Of each stage, how far in cells the middle of a cell is from where the cell looks.
        self.shifts = [0.5 - centres.get(stride, stride / 2) / stride for stride in strides]
        if config.decoder == "pyramid" and max(-min(config.stages), max(config.stages) + 1) > len(channels):
            kind = "blocks" if is_vit(config.backbone) else "stages"
            raise ConfigError(f"{config.backbone} has {len(channels)} {kind}, not those of stages={config.stages}")
        self.decoder = make_decoder(
            config.decoder,
            channels,
            config.dim,
            config.output_stride,
            config.hidden,
            config.stages,
            config.correction,
        )
        self.dim: int = channels[-1] if config.decoder == "none" else config.dim
        self.centre = nn.BatchNorm2d(self.dim, affine=False) if config.centred else nn.Identity()
        of_four = max(len(strides) - 4, 0)
        finest = {"fpn": of_four, "deeplabv3plus": of_four, "pyramid": config.stages[0] if config.stages else -1}
        self.stride: int = strides[finest.get(config.decoder, -1)]
        self.still = freeze(self.backbone, None if config.frozen else config.frozen_stages)
        self.saliency_head = nn.Conv2d(self.decoder.channels, 1, 1) if config.saliency else None
        measured = config.channels
        mean, std = (config.mean, config.std) if measured is None else (measured.mean, measured.std)
        self.register_buffer("mean", torch.tensor(mean or IMAGENET_MEAN).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std or IMAGENET_STD).view(1, -1, 1, 1))

    def __repr__(self) -> str:
        """One line; the layers are those of `backbone` and `decoder`."""
        return in_line("Embedder", [(name.replace(" ", "_"), value) for name, value in facts_of(self)])

    def _repr_html_(self) -> str:
        return card("An embedder: an image to a vector at every place", facts(facts_of(self)))

    def _make_backbone(self, inputs: int, groups: Sequence[Group] = ()) -> nn.Module:
        config, all_blocks = self.config, self.config.decoder == "pyramid"
        normed = config.final_norm is not False
        inputs = 3 if groups else inputs
        return make_backbone(config.backbone, config.output_stride, normed, all_blocks, inputs, groups)

    def train(self, mode: bool = True) -> Embedder:
        """As of any module; a frozen backbone and frozen stages stay in eval mode."""
        super().train(mode)
        for name in self.still:
            self.backbone.get_submodule(name).eval()
        return self

    @property
    def colours(self) -> Colours:
        """The mean and the deviation of each channel in [0, 1] that the network expects: of R, G and B."""
        return tuple(self.mean.flatten().tolist()), tuple(self.std.flatten().tolist())

    def expect_colours(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what is subtracted from each channel in [0, 1], and what they are divided by."""
        self.mean.copy_(self.mean.new_tensor(mean).view(1, -1, 1, 1))
        self.std.copy_(self.std.new_tensor(std).view(1, -1, 1, 1))

    def begin_from(self, word: str | Path | None) -> str:
        """Give the backbone its initial weights, and the normalisation that belongs to them unless the config has one.

        Args:
            word: "default", "imagenet", "imagenet:TAG", "random" or a file, see `selfseg.models.start`.

        Returns:
            A sentence on what was loaded.

        Raises:
            CheckpointError: if the weights can't be had, or are another network's. Nothing is changed then.
        """
        channels, backbone = self.config.channels, self.backbone
        if isinstance(backbone, ChannelGroups):
            backbone = backbone.grouped
        if self.config.inputs == 3 or backbone is not self.backbone or word in (None, "random"):
            initial = load_backbone(backbone, word, self.config.backbone)
        else:
            rgb = self._make_backbone(3)
            initial = load_backbone(rgb, word, self.config.backbone)
            state, wanted = rgb.state_dict(), backbone.state_dict()
            backbone.load_state_dict(widen(state, wanted, "mean" if self.config.from_rgb == "mean" else "repeat"))
        if channels is None:
            self.expect_colours(self.config.mean or initial.mean, self.config.std or initial.std)
        else:
            self.expect_colours(*expected_levels(channels.mean, channels.std, initial.mean, initial.std))
        self.start = initial.about
        return initial.loaded

    @torch.no_grad()
    def pyramid_stages(self, image: Tensor) -> list[Tensor]:
        """The stages that the pyramid uses, as they are: (B, C_i, h_i, w_i) float32 each, finest first.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1].
        """
        stages = self._stages(image)
        return [stages[stage].float() for stage in self.config.stages]

    def fit_pyramid(self, samples: Sequence[Tensor]) -> None:
        """Find the pyramid's numbers.

        Args:
            samples: of each used stage (N, C_i) float, as `pyramid_stages` gives them, at the same places.

        Raises:
            ConfigError: if the decoder is another, or the samples can't be used.
        """
        if not isinstance(self.decoder, Pyramid):
            raise ConfigError(f"the decoder {self.config.decoder} is trained, not fitted; take the decoder pyramid")
        self.decoder.fit(samples, self.config.whiten)

    @in_phase("forward")
    def features(self, image: Tensor) -> Tensor:
        """What the heads share: the decoder before its last linear map.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1].

        Returns:
            (B, C, h, w) float with h = ceil(H / stride) and C = `decoder.channels`.
        """
        return self.decoder.features(self._stages(image))

    def raw(self, image: Tensor) -> Tensor:
        """The embedding before it is normalised.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1].

        Returns:
            (B, D, h, w) float with h = ceil(H / stride).
        """
        return self.raw_views([image])[0]

    @in_phase("forward")
    def raw_views(self, views: Sequence[Tensor]) -> list[Tensor]:
        """`raw` of several views, one after the other for every BatchNorm; a projector's products are one for all.

        Args:
            views: (B, 3, H, W) float each, RGB in [0, 1].

        Returns:
            (B, D, h, w) float each.
        """
        stages = [self._stages(image) for image in views]
        if isinstance(self.decoder, Projector):
            decoded = self.decoder.views(stages)
        else:
            decoded = [self.decoder(each) for each in stages]
        return [self.centre(each) for each in decoded]

    @in_phase("forward")
    def raw_and_saliency(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads in one pass: `raw` (B, D, h, w), and `saliency` (B, h, w).

        Raises:
            ConfigError: if this embedder has no saliency head.
        """
        features = self.features(image)
        return self.centre(self.decoder.project(features)), self._saliency(features)

    def saliency(self, image: Tensor) -> Tensor:
        """How sure the network is that there is foreground.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1].

        Returns:
            (B, h, w) float logits: above 0 where foreground is the likelier.

        Raises:
            ConfigError: if this embedder has no saliency head.
        """
        return self._saliency(self.features(image))

    def _stages(self, image: Tensor) -> list[Tensor]:
        image = image.contiguous(memory_format=torch.channels_last)  # pooling and convolutions are faster so
        height, width = image.shape[2:]
        border = self.config.border
        if border:
            # Mirrored as far as there is something to mirror, repeated beyond: images may be smaller than the border.
            inner = min(border, height - 1, width - 1)
            image = F.pad(image, (inner,) * 4, mode="reflect")
            if border > inner:
                image = F.pad(image, (border - inner,) * 4, mode="replicate")
        maps = self.backbone((image - self.mean) / self.std)
        if border:
            maps = [
                each[
                    :,
                    :,
                    border // s : border // s + (height + s - 1) // s,
                    border // s : border // s + (width + s - 1) // s,
                ]
                for each, s in zip(maps, self.strides, strict=True)
            ]
        return [move_cells(each, shift) for each, shift in zip(maps, self.shifts, strict=True)]

    def _saliency(self, features: Tensor) -> Tensor:
        if self.saliency_head is None:
            raise ConfigError("this embedder has no saliency head: train it with EmbedderConfig(saliency=True)")
        logits: Tensor = self.saliency_head(features)
        return logits.squeeze(1)

    def forward(self, image: Tensor) -> Tensor:
        """The embedding.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1].

        Returns:
            (B, D, h, w) float32, unit length over D.
        """
        return self._unit(self._stages(image))

    def _unit(self, stages: Sequence[Tensor]) -> Tensor:
        return F.normalize(self.centre(self.decoder(stages)).float(), dim=1)

    @torch.no_grad()  # not inference_mode: what comes out may be used to train a layer on top
    def embed(self, image: NDArray[np.uint8] | str | Path | Any) -> Tensor:
        """Embed one image of any size.

        Args:
            image: (H, W, 3) uint8 RGB, a tensor (3, H, W), a PIL image, or a file. Resized so that its short side is
                `resolution`.

        Returns:
            (D, h, w) float32 on the CPU, unit length over D.

        Raises:
            BadImage: if a file can't be read.
            ConfigError: if an array is not (H, W, 3) uint8.
        """
        return self._on(self.look, image)

    @torch.no_grad()
    def foreground(self, image: NDArray[np.uint8] | str | Path | Any) -> Tensor:
        """Where one image of any size shows foreground, by the saliency head.

        Args:
            image: as of `embed`.

        Returns:
            (h, w) float32 probabilities on the CPU, on the grid of `embed`.

        Raises:
            BadImage: if a file can't be read.
            ConfigError: if an array is not (H, W, 3) uint8, or this embedder has no saliency head.
        """
        return self._on(self.saliency, image).float().sigmoid()

    def prepare(self, image: NDArray[np.uint8] | str | Path | Any) -> NDArray[np.uint8]:
        """One image as `embed` looks at it.

        Args:
            image: as of `embed`.

        Returns:
            (H, W, 3) uint8 RGB, its short side `resolution`.

        Raises:
            BadImage: if a file can't be read.
            ConfigError: if an array is not (H, W, 3) uint8.
        """
        return prepare_image(image, self.resolution, self.config.channels)

    @torch.no_grad()
    def embed_prepared(
        self, images: Sequence[NDArray[np.uint8]], look: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Embed images that `prepare` gave, in one pass.

        Args:
            images: B of them, (H, W, 3) uint8 RGB of one size.
            look: instead of `look`.

        Returns:
            (B, D, h, w) float32 on the embedder's device, unit length over D. On a GPU it may still be at work.
        """
        return self._evaluate(look or self.look, images)

    def before_training(self) -> Embedder | None:
        """What this embedder was before its first step; None where that can't be told from it.

        It can where all that was learned is a pyramid's correction, which begins at zero. The result shares this
        one's modules.
        """
        decoder = self.decoder
        learned = isinstance(decoder, Pyramid) and decoder.correction is not None
        if not learned or not self.config.frozen or self.config.centred:
            return None
        before = copy.copy(self)
        # Modules lie in dictionaries, which a shallow copy shares.
        before._modules, shallow = dict(self._modules), copy.copy(decoder)
        shallow._modules = {**decoder._modules, "correction": None}
        before.decoder = shallow
        return before

    def look(self, image: Tensor) -> Tensor:
        """The embedding, averaged over as many looks as `looks` says, and smoothed if the config says so.

        Args:
            image: (B, 3, H, W) float, RGB in [0, 1].

        Returns:
            (B, D, h, w) float32, unit length over D, on a grid of `looked_stride`: that of the largest look, or of
            what is smoothed.
        """
        if not self.config.smooth:
            return self.looks.average(self, image)
        stages = self._stages(image)
        found = self.looks.average(self, image) if self.looks != Looks() else self._unit(stages)
        # The stages before the last are finer than what is smoothed: 8 and 16 px of the pyramid's.
        return smooth_batch(found, image, self.config.smooth, stages[-3:-1], self.config.rgb, self.superpixels)

    @property
    def looked_stride(self) -> float:
        """Of what `embed` and `look` give, in px of the prepared image."""
        return SMOOTHED_STRIDE if self.config.smooth else self.stride / max(self.looks.scales)

    def _on(self, function: Callable[[Tensor], Tensor], image: NDArray[np.uint8] | str | Path | Any) -> Tensor:
        """What a function of a batch gives for one image, in eval mode; on the CPU, without the batch."""
        return self._evaluate(function, [self.prepare(image)])[0].cpu()

    def _evaluate(self, function: Callable[[Tensor], Tensor], images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """What a function of a batch in [0, 1] gives for prepared images, in eval mode."""
        batch = as_batch(images, self.mean.device)
        training = self.training
        self.eval()
        try:
            return function(batch.float() / 255)
        finally:
            self.train(training)

    def save(self, folder: str | Path) -> None:
        """Write `weights.safetensors` and `embedder.json` into a folder, each atomically."""
        folder = Path(folder)
        weights = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        write_tensors(folder / "weights.safetensors", weights)
        write_json(folder / "embedder.json", {"format": FORMAT, "start": self.start, **asdict(self.config)})

    def shared_network(self) -> Network:
        """What a model card says of the network."""
        return Network("embedder", self.config.facts(self.dim, self.looked_stride, self.start), self.config.channels)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; in eval mode, on the CPU.

        Raises:
            CheckpointError: if the folder holds no embedder, or another format's.
        """
        folder = Path(folder)
        try:
            weights = read_tensors(folder / "weights.safetensors")
        except (OSError, ValueError) as error:  # missing, damaged, foreign, NaN: the user needs one sentence
            raise CheckpointError(
                f"no readable embedder in {folder} (embedder.json and weights.safetensors): {error}"
            ) from error
        try:
            config, start = read_config(folder)
            check_sizes(config, weights)
            embedder = cls(config)
            embedder.start = start
            embedder.load_state_dict(weights)
        except (RuntimeError, TypeError, ValueError, ConfigError) as error:
            raise CheckpointError(f"the weights in {folder} don't fit its embedder.json: {error}") from error
        return embedder.eval()
