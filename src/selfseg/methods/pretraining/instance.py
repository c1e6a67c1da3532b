"""Instance discrimination: every image is a class of its own, and a memory bank holds one vector for each.

Wu, Xiong, Yu, Lin: "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018. An image must
be told from all others by its nearness to its own entry of the bank, which is its vector of an epoch ago; either among
all entries (`noise=0`, eq. 2) or, with noise-contrastive estimation, among drawn ones (section 3.2).
A baseline: it compares whole images, and its dense embedding is the backbone's feature map, without the head.

From the authors' program, which made the published weights, where the paper leaves it open or says otherwise:
- an entry is the average of itself and the image's new vector (`momentum`), instead of the new vector held near the old
  one by proximal regularisation (eq. 10), which is `proximal` with `momentum=0`;
- a noise term compares the image with a drawn entry, h(j, v), not an image's entry with a drawn one, h(i, v'): the
  latter has no gradient;
- crops, colours and weight decay.

Deviations, and why:
- Noise is drawn by image and progress, so that neither a resume nor the number of processes changes it.
- The normalising constant Z is the first step's estimate of eq. 8, over the batch of all processes.

Letters: B images of the batch, n of the collection, D dimension of the vectors, m noise entries of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.base import Method
from selfseg.models.distributed import gather_rows, sum_over_processes, world_size
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.linear import Linear
from selfseg.ops.objectives.losses import effective_rank
from selfseg.types import Batch, LazyLogs, StepOutput


@dataclass(frozen=True)
class InstanceDiscriminationConfig:
    """Instance discrimination's settings; the defaults are the paper's on ImageNet, but see above.

    Attributes:
        embedder: the network; its output is pooled over the image and projected by one linear layer.
        views: the view plan: one crop.
        dim: D, the dimensions of the vectors in the bank.
        temperature: tau of the softmax over entries.
        noise: m, entries that an image is compared with beside its own; 0 compares with all (the full softmax).
        momentum: share of itself that an entry keeps when its image is seen again; 0 in the paper's text.
        proximal: lambda of eq. 10, the weight of the squared distance between an image's vector and its entry.
    """

    embedder: EmbedderConfig = field(
        default_factory=lambda: EmbedderConfig(backbone="resnet50", output_stride=32, decoder="none")
    )
    views: RandomCrops = field(
        default_factory=lambda: RandomCrops(
            views=1, jitter=(0.4, 0.4, 0.4, 0.4), jitter_probability=1.0, blur_probability=0.0
        )
    )
    dim: int = 128
    temperature: float = 0.07
    noise: int = 4096
    momentum: float = 0.5
    proximal: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dim", "temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"method.{name} must be above 0, not {getattr(self, name)}")
        for name in ("noise", "proximal"):
            if getattr(self, name) < 0:
                raise ConfigError(f"method.{name} must be 0 (none) or more, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"method.momentum must be in [0, 1), not {self.momentum}: 1 would never learn an entry")
        if (self.views.views, self.views.small_views) != (1, 0):
            raise ConfigError(
                "instance discrimination sees one crop: method.views.views must be 1 and small_views 0, not "
                f"{self.views.views} and {self.views.small_views}"
            )


class InstanceDiscrimination(Method):
    """The method; `compare` is section 3.

    Logs: loss_guess (loss of a guess among all entries, log n; only without noise), nearness
    (cosine of an image with its own entry), found (share of images that are nearer to it than to all others they are
    compared with), log_normaliser (of Z; 0 without noise), effective_rank (of the batch's vectors).
    """

    Config: ClassVar[type[InstanceDiscriminationConfig]] = InstanceDiscriminationConfig
    bank: Tensor
    log_normaliser: Tensor
    estimated: Tensor

    def __init__(self, config: InstanceDiscriminationConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config.embedder)
        self.head = Linear(self.embedder.dim, config.dim)
        self.register_buffer("bank", torch.zeros(0, config.dim))  # (n, D) unit rows, see `expect_images`
        self.register_buffer("log_normaliser", torch.zeros(()))
        self.register_buffer("estimated", torch.tensor(False))

    def views(self) -> RandomCrops:
        """One crop."""
        return self.config.views

    @torch.no_grad()
    def expect_images(self, count: int) -> None:
        """A bank of random unit vectors, one for each image."""
        self.bank = F.normalize(torch.randn(count, self.config.dim), dim=1).to(self.bank)

    def forward(self, batch: Batch, progress: float) -> StepOutput:
        """A vector of each image; compare it with the bank."""
        if not len(self.bank):
            raise ConfigError("the memory bank has no room yet: call expect_images with the number of images")
        vectors = self.head(self.embedder.raw(batch.views[0].image).mean((2, 3)))
        # In float32 under every precision, as all comparisons.
        with torch.autocast(vectors.device.type, enabled=False):
            return self.compare(vectors.float(), batch.index, self._draw(batch.index, progress))

    def _draw(self, index: Tensor, progress: float) -> Tensor:
        """Which entries are an image's noise: (B, m) int64, uniform over the bank (P_n), its own not left out."""
        moment = int(progress * 2**48)
        drawn = [
            np.random.default_rng((image, moment)).integers(len(self.bank), size=self.config.noise)
            for image in (index.tolist() if self.config.noise else [])
        ]
        return torch.from_numpy(np.stack(drawn) if drawn else np.zeros((len(index), 0), np.int64)).to(index.device)

    def compare(self, vectors: Tensor, index: Tensor, noise: Tensor) -> StepOutput:
        """The loss (eq. 2 and 3, or 4 to 10); then the images' entries take their vectors in.

        Args:
            vectors: (B, D) of any length.
            index: (B,) int64, which images they are.
            noise: (B, m) int64, the entries that each is compared with; of no use without noise.
        """
        config = self.config
        vectors = F.normalize(vectors, dim=1)
        bank = self.bank.to(vectors)
        entries = bank[index]  # (B, D), a copy
        own = (vectors * entries).sum(1) / config.temperature
        if config.noise:
            others = torch.einsum("bd,bmd->bm", vectors, bank[noise]) / config.temperature
            each = self._estimate(own, others)
        else:
            others = vectors @ bank.T.clone() / config.temperature  # the bank changes before the backward pass
            each = others.logsumexp(1) - own
        each = each + config.proximal * (vectors - entries).square().sum(1)
        with torch.no_grad():
            logs = {
                "nearness": (vectors * entries).sum(1).mean(),
                # The own entry may be among the others, to the last bits.
                "found": (own + 1e-4 >= others.amax(1)).float().mean(),
                "log_normaliser": self.log_normaliser.clone(),
            }
            if not config.noise:
                logs["loss_guess"] = own.new_tensor(math.log(len(bank)))
        if self.training:
            self._remember(vectors, entries, index)
        seen = vectors.detach()
        # Every process has as many images, so the mean of their means is the mean of all.
        return StepOutput(each.mean(), LazyLogs(logs, effective_rank=lambda: effective_rank(seen)))

    def _estimate(self, own: Tensor, others: Tensor) -> Tensor:
        """Noise-contrastive estimation (eq. 4 to 8): (B,) losses of own (B,) and drawn (B, m) cosines / tau."""
        images, drawn = len(self.bank), others.shape[1]
        with torch.no_grad():
            # Eq. 8: n times the mean of exp over drawn entries, of the first batch.
            mean = others.exp().mean()
            estimate = (images * sum_over_processes(mean) / world_size()).log()
            log_z = torch.where(self.estimated, self.log_normaliser.to(estimate), estimate)
            if self.training:
                self.log_normaliser.copy_(log_z)
                self.estimated.fill_(True)
        log_noise = math.log(drawn / images)  # of m P_n
        # log h = log P - log(P + m P_n), and log(1 - h) the same of the noise.
        data = F.softplus(log_noise - (own - log_z))
        return data + F.softplus(others - log_z - log_noise).sum(1)

    @torch.no_grad()
    def _remember(self, vectors: Tensor, entries: Tensor, index: Tensor) -> None:
        """An image's entry and its vector, averaged and of unit length, become its entry; in every process the same."""
        averaged = F.normalize(self.config.momentum * entries + (1 - self.config.momentum) * vectors, dim=1)
        rows, images = gather_rows(averaged)[0], gather_rows(index)[0]
        # A batch at the end of an epoch may have an image twice: both write what the last one has.
        places = torch.arange(len(images), device=images.device)
        last = ((images[:, None] == images) * places).amax(1)
        self.bank[images] = rows[last].to(self.bank)
