import numpy as np
import torch
from torchvision.ops import roi_align

from selfseg.ops.geometry import interpolation_matrices, overlap, sample_ids


def test_the_overlap_is_read_as_roi_align_and_a_flip_back() -> None:
    """Random pairs of crops, half of them mirrored, of a map that is not square."""
    generator = torch.Generator().manual_seed(0)
    images, h, w = 64, 5, 7
    pairs = []
    for _ in range(2):
        scale = 0.45 + 0.5 * torch.rand(images, 2, generator=generator, dtype=torch.float64)
        shift = (2 * torch.rand(images, 2, generator=generator, dtype=torch.float64) - 1) * (1 - scale)
        scale[:, 0] *= torch.where(torch.rand(images, generator=generator) < 0.5, -1.0, 1.0)
        pairs.append(torch.cat([torch.diag_embed(scale), shift[:, :, None]], dim=2))
    box = overlap(*pairs)
    together = (box[:, 2:] > box[:, :2]).all(1)
    assert together.sum() > 50
    cells = torch.randn(images, 3, h, w, generator=generator, dtype=torch.float64)
    for affine in pairs:
        rows, columns = interpolation_matrices(affine, box, (h, w))
        ours = rows[:, None] @ cells @ columns.transpose(1, 2)[:, None]
        ends = []
        for axis, size in ((0, w), (1, h)):
            corners = torch.stack([box[:, axis], box[:, axis + 2]], 1)
            inside = (corners - affine[:, axis, 2, None]) / affine[:, axis, axis, None]
            ends.append((inside.sort(1).values + 1) / 2 * size)
        number = torch.arange(images, dtype=torch.float64)[:, None]
        rois = torch.cat([number, torch.stack(ends, 2).flatten(1)], 1)
        theirs = roi_align(cells, rois, (h, w), sampling_ratio=1, aligned=True)
        theirs = torch.where((affine[:, 0, 0] < 0)[:, None, None, None], theirs.flip(3), theirs)
        torch.testing.assert_close(ours[together], theirs[together], atol=1e-9, rtol=0)


def test_ids_beyond_the_map_are_none() -> None:
    ids = np.arange(12, dtype=np.int32).reshape(3, 4)
    padded = np.pad(ids, 5, constant_values=-1)
    for box in ((-2, -1, 6, 5), (-3, 1, 2, 3), (1, 0, 9, 3), (3, 2, 8, 7)):
        x0, y0, x1, y1 = box
        inside = (x0 + 5, y0 + 5, x1 + 5, y1 + 5)
        for size, flip in (((4, 8), False), ((3, 5), True)):
            assert np.array_equal(sample_ids(ids, box, size, flip), sample_ids(padded, inside, size, flip))
