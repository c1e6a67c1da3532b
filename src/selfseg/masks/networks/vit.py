"""Foreground from a self-supervised vision transformer, without training.

    attention   where the last block's CLS token looks: M. Caron et al., "Emerging Properties in Self-Supervised Vision
                Transformers" (DINO), ICCV 2021, section 4.2.2
    tokencut    the normalised cut of the last block's keys: Y. Wang et al., "Self-Supervised Transformers for
                Unsupervised Object Discovery using Normalized Cut" (TokenCut), CVPR 2022, section 3.2

Where ours is not as in the papers
- attention: DINO shows each head, and takes the best one by the labels. We take the mean of all heads.
- both give maps, not masks, whose 0.5 is the papers' threshold: the most looked at patches with 60 % of the attention;
  the mean of the eigenvector.
- edges are refined by a CRF (`selfseg.masks.edges`) where TokenCut has a bilateral solver, and objects in several
  pieces stay whole.

Letters in shapes: P patches in a grid of h x w, N tokens (P and some before them), D length of a key, M heads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selfseg.collection.streaming import Fetched, to_device
from selfseg.data.reading.images import resize_short_side
from selfseg.errors import ConfigError
from selfseg.masks.edges import to_image
from selfseg.masks.priors.scene import Array
from selfseg.models.start import load_backbone

Foreground = Literal["attention", "tokencut"]

VERSION = 1
"""Raised whenever the same image and weights would give another map."""

SHORT_SIDE = 320
"""Images are looked at with a short side of so many px."""

_MASS = 0.6  # of the attention that a mask keeps, as in DINO
_SIMILAR = 0.2  # keys of at least this cosine are neighbours (TokenCut's tau)
_WEAK = 1e-5  # the weight of all other edges


class TransformerForeground:
    """Maps of the foreground from one transformer.

    Args:
        name: timm's name of a plain ViT, e.g. "vit_small_patch8_224".
        weights: its weights, as `selfseg.models.start.load_backbone` reads them; a file of DINO will do.
        kind: "attention" or "tokencut".
        device: where it runs.

    Raises:
        ConfigError: if timm has no such network, or it is no plain ViT with a CLS token.
        CheckpointError: if the weights are not of it.

    Example:
        >>> find = TransformerForeground("vit_small_patch16_224", Path("dino.pth"), "tokencut")  # doctest: +SKIP
        >>> saliency = find(image)  # doctest: +SKIP
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: Path, kind: Foreground, device: torch.device | str = "cpu") -> None:
        self.kind, self.device = kind, torch.device(device)
        network = _make(name)
        initial = load_backbone(network, weights, name)
        self.network = network.to(self.device).eval()
        self._alone = threading.Lock()
        self.patch: tuple[int, int] = network.patch_embed.patch_size
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (initial.mean, initial.std)
        )

    def __call__(self, image: NDArray[np.uint8]) -> Array:
        """The foreground of an image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) float32 in [0, 1]; from 0.5 on a pixel is rather of an object.
        """
        with self._alone:  # one thread's hook would see another one's image
            queries, keys, grid = self._last_block(image)
        return to_image(self._map(queries, keys).reshape(grid), image)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As of `selfseg.masks.together.Finder`: the image as the network sees it."""
        return np.ascontiguousarray(resize_short_side(image, SHORT_SIDE))

    def pixels(self, prepared: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As of `Finder`."""
        return prepared

    def see(self, pixels: Sequence[NDArray[np.uint8]]) -> list[tuple[Fetched, Fetched]]:
        """Queries and keys of the last block for several images of one size, (M, N, D) each."""
        batch = to_device(np.stack(pixels), self.device).permute(0, 3, 1, 2).float() / 255
        queries, keys = self._queries_and_keys(batch)
        return list(zip(Fetched(queries.contiguous()).rows(), Fetched(keys.contiguous()).rows(), strict=True))

    def coarse(self, prepared: NDArray[np.uint8], found: tuple[Fetched, Fetched]) -> Array:
        """As of `Finder`."""
        queries, keys = (torch.from_numpy(each.numpy()) for each in found)
        return self._map(queries, keys).reshape(self._grid(prepared))

    def _map(self, queries: Tensor, keys: Tensor) -> Array:
        """Queries and keys of an image, (M, N, D) on the CPU, to its map (P,)."""
        before = cast(Any, self.network).num_prefix_tokens
        if self.kind == "attention":
            weights = torch.einsum("md,mnd->mn", queries[:, 0], keys) / math.sqrt(keys.shape[2])
            return attention_map(weights.softmax(1)[:, before:].mean(0).numpy())
        return normalised_cut(keys[:, before:].transpose(0, 1).flatten(1).numpy())

    def _grid(self, small: NDArray[np.uint8]) -> tuple[int, int]:
        return math.ceil(small.shape[0] / self.patch[0]), math.ceil(small.shape[1] / self.patch[1])

    def _last_block(self, image: NDArray[np.uint8]) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Queries and keys of the last block, (M, N, D) each on the CPU, and the grid (h, w) of patches."""
        small = self.prepare(image)
        pixels = torch.from_numpy(small).to(self.device).permute(2, 0, 1)[None].float() / 255
        queries, keys = self._queries_and_keys(pixels)
        return queries[0].cpu(), keys[0].cpu(), self._grid(small)

    @torch.no_grad()
    def _queries_and_keys(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Of the last block for (B, 3, H, W) in [0, 1]: (B, M, N, D) each."""
        attention: Any = cast(Any, self.network).blocks[-1].attn
        seen: list[Tensor] = []
        handle = attention.qkv.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            cast(Any, self.network).forward_features((pixels - self.mean) / self.std)
        finally:
            handle.remove()
        heads = attention.num_heads
        images, tokens, _ = seen[0].shape
        queries, keys, _ = seen[0].float().view(images, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (B, M, N, D)
        return attention.q_norm(queries), attention.k_norm(keys)


def attention_map(attention: NDArray[np.floating]) -> Array:
    """How far up a patch is among those that are looked at most.

    Args:
        attention: (P,) at least 0.

    Returns:
        (P,) float32 in [0, 1]: 1 for the patch with most attention, 0.5 where 60 % of it lie above.

    Example:
        >>> [round(float(value), 3) for value in attention_map(np.array([0.1, 0.5, 0.4]))]
        [0.125, 1.0, 0.583]
    """
    order = np.argsort(-attention, kind="stable")
    share = attention[order] / max(float(attention.sum()), 1e-12)
    above = np.cumsum(share) - share  # the attention of all patches that get more
    values = np.zeros(len(attention), np.float32)
    values[order] = np.where(above <= _MASS, 1 - above / (2 * _MASS), 0.5 * (1 - above) / (1 - _MASS))
    return np.clip(values, 0, 1)


def normalised_cut(keys: NDArray[np.floating]) -> Array:
    """The second smallest eigenvector of the normalised Laplacian of the patches' graph, as a map.

    Patches whose keys have a cosine above 0.2 are joined by an edge of 1, all others by one of 1e-5. The foreground is
    the side with the largest entry, of whatever sign.

    Args:
        keys: (P, D) float.

    Returns:
        (P,) float32 in [0, 1]; 0.5 is the eigenvector's mean. All 0 if there is nothing to part.

    Example:
        >>> keys = np.repeat(np.eye(2), [7, 2], axis=0)  # seven patches of one kind, two of another
        >>> (normalised_cut(keys) > 0.5).astype(int).tolist()
        [0, 0, 0, 0, 0, 0, 0, 1, 1]
    """
    if len(keys) < 2:
        return np.zeros(len(keys), np.float32)
    unit = keys.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    weights = np.where(unit @ unit.T > _SIMILAR, 1.0, _WEAK)
    root = 1 / np.sqrt(weights.sum(1))
    # (D - W) x = lambda D x, with x = D^-1/2 y
    laplacian = np.eye(len(keys)) - weights * root * root[:, None]
    vector = eigh(laplacian, subset_by_index=[1, 1])[1][:, 0] * root
    vector *= np.sign(vector[np.abs(vector).argmax()])
    low, middle, high = vector.min(), vector.mean(), vector.max()
    if high - low < 1e-9:
        return np.zeros(len(keys), np.float32)
    above = 0.5 + 0.5 * (vector - middle) / (high - middle)
    below = 0.5 * (vector - low) / (middle - low)
    values: Array = np.where(vector > middle, above, below).astype(np.float32)
    return values


def _make(name: str) -> VisionTransformer:
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"can't build a vision transformer {name!r}: {error}") from error
    if not isinstance(network, VisionTransformer) or not network.num_prefix_tokens or network.cls_token is None:
        raise ConfigError(
            f"{name} is no plain vision transformer with a CLS token; give one, e.g. --network.backbone "
            "vit_small_patch16_224"
        )
    return network
