"""The compiled kernels that make superpixels connected: the second half of `selfseg.ops.kernels.slic_cpu`.

Everything works on runs, stretches of equal labels within a row, which are some 10 times fewer than pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.ops.kernels.slic_cpu import FAR, compiled


@compiled("i8(i4[::1], i8)")
def _find(parent: NDArray[np.int32], node: int) -> int:
    """The root of a node; halves the path on its way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled("i8(i4[::1], i4[::1], i4[::1], i4[::1], i8, i4, i4)")
def _add_neighbour(
    head: NDArray[np.int32],
    tail: NDArray[np.int32],
    other: NDArray[np.int32],
    following: NDArray[np.int32],
    edges: int,
    one: int,
    two: int,
) -> int:
    """Append `two` to the list of `one`, unless it is already its last entry; returns the number of entries."""
    last = tail[one]
    if last >= 0 and other[last] == two:
        return edges
    other[edges] = two
    following[edges] = -1
    if last < 0:
        head[one] = edges
    else:
        following[last] = edges
    tail[one] = edges
    return edges + 1


@compiled("void(i4[::1], i4[::1], i4[::1], i8[:,::1], u1[::1], i8, i4[::1], i8)")
def _merge(
    row_start: NDArray[np.int32],
    begin: NDArray[np.int32],
    piece: NDArray[np.int32],
    total: NDArray[np.int64],
    void: NDArray[np.uint8],
    smallest: int,
    merged: NDArray[np.int32],
    width: int,
) -> None:
    """Join pieces of fewer than `smallest` pixels to the neighbour of the nearest mean colour, smallest first.

    Args:
        row_start: (H + 1,) the first run of each row.
        begin: of each run, its first x.
        piece: of each run, which piece it belongs to.
        total: (pieces, C + 1): of each piece the sums of its colours, and its pixels.
        void: (pieces,) 1 for those that nothing joins.
        smallest: pixels of a piece that may stay.
        merged: (pieces,) each itself; filled: what it joined.
        width: of the image.
    """
    count, pieces, fields = len(piece), len(total), total.shape[1] - 1
    # The neighbours of each small piece, as chained lists, so that joining pieces joins their lists.
    head, tail = np.full(pieces, -1, np.int32), np.full(pieces, -1, np.int32)
    other, following = np.empty(6 * count, np.int32), np.empty(6 * count, np.int32)
    small = np.empty(pieces, np.uint8)
    mean = np.empty((pieces, fields), np.float32)
    for one in range(pieces):
        small[one] = total[one, fields] < smallest and not void[one]
        share = 1.0 / total[one, fields]
        for field in range(fields):
            mean[one, field] = np.float32(total[one, field] * share)
    edges = 0
    for y in range(len(row_start) - 1):
        upper = row_start[y - 1] if y else 0
        for run in range(row_start[y], row_start[y + 1]):
            one = piece[run]
            if run > row_start[y]:
                two = piece[run - 1]  # never the same label
                if small[one]:
                    edges = _add_neighbour(head, tail, other, following, edges, one, two)
                if small[two]:
                    edges = _add_neighbour(head, tail, other, following, edges, two, one)
            if y == 0:
                continue
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            while True:
                two = piece[upper]
                if one != two:
                    if small[one]:
                        edges = _add_neighbour(head, tail, other, following, edges, one, two)
                    if small[two]:
                        edges = _add_neighbour(head, tail, other, following, edges, two, one)
                if upper + 1 == row_start[y]:
                    break
                upper_stop = begin[upper + 1]
                if upper_stop > stop:
                    break
                upper += 1
                if upper_stop == stop:
                    break
    # Counting sort of the small pieces by size; stable, hence deterministic.
    start = np.zeros(smallest + 1, np.int32)
    for one in range(pieces):
        if small[one]:
            start[total[one, fields] + 1] += 1
    for pixels in range(smallest):
        start[pixels + 1] += start[pixels]
    order = np.empty(start[smallest], np.int32)
    for one in range(pieces):
        if small[one]:
            order[start[total[one, fields]]] = one
            start[total[one, fields]] += 1
    for one in order:
        if total[one, fields] >= smallest or merged[one] != one:
            continue  # it has grown, or was the whole of what is left
        nearest, best = -1, FAR
        edge = head[one]
        while edge >= 0:
            two = _find(merged, other[edge])
            if two != one and not void[two]:
                distance = np.float32(0)
                for field in range(fields):
                    difference = mean[one, field] - mean[two, field]
                    distance += difference * difference
                if distance < best or (distance == best and two < nearest):
                    nearest, best = two, distance
            edge = following[edge]
        if nearest < 0:
            continue  # it is the whole image, or an island in what is void
        merged[one] = nearest
        for field in range(fields + 1):
            total[nearest, field] += total[one, field]
        share = 1.0 / total[nearest, fields]
        for field in range(fields):
            mean[nearest, field] = np.float32(total[nearest, field] * share)
        if head[nearest] < 0:
            head[nearest] = head[one]
        else:
            following[tail[nearest]] = head[one]
        tail[nearest] = tail[one]


@compiled("i8(i4[:,::1], i4[:,:,::1], i8, i4[:,::1])")
def connect(labels: NDArray[np.int32], sums: NDArray[np.int32], smallest: int, out: NDArray[np.int32]) -> int:
    """Make every region one 4-connected piece of at least `smallest` pixels; ids dense in raster order.

    A smaller piece joins the neighbouring region whose mean colour is nearest, smallest pieces first.

    Args:
        labels: (H, >= W) of pixels; below 0 where void, which is in no region (-1 in `out`) and joins none.
        sums: (H, W + 1, C) running sums of the colours along each row.
        smallest: in pixels.
        out: (H, W), filled.

    Returns:
        The number of regions.
    """
    height, width = out.shape
    fields = sums.shape[2]
    # Runs of equal labels; there are some 10 times fewer than pixels.
    count = height
    for y in range(height):
        line = labels[y, :width]
        previous = line[: width - 1]
        for x in range(width - 1):
            count += np.int64(line[1 + x] != previous[x])
    row_start = np.empty(height + 1, np.int32)
    begin = np.empty(count + 1, np.int32)
    parent = np.empty(count, np.int32)
    run = 0
    for y in range(height):
        row_start[y] = run
        line = labels[y, :width]
        begin[run] = 0
        parent[run] = run
        run += 1
        label = line[0]
        for x in range(width):
            if line[x] != label:
                label = line[x]
                begin[run] = x
                parent[run] = run
                run += 1
    row_start[height] = count
    # Join runs that touch; a parent always comes before its children.
    for y in range(1, height):
        upper, upper_end = row_start[y - 1], row_start[y]
        for run in range(row_start[y], row_start[y + 1]):
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            label = labels[y, begin[run]]
            while True:
                upper_stop = begin[upper + 1] if upper + 1 < upper_end else width
                if labels[y - 1, begin[upper]] == label:
                    one = _find(parent, upper)
                    if parent[run] == run:
                        parent[run] = one
                    else:
                        two = _find(parent, run)
                        if one < two:
                            parent[two] = one
                        else:
                            parent[one] = two
                if upper_stop > stop or upper + 1 == upper_end:
                    break
                upper += 1
                if upper_stop == stop:
                    break
    piece = np.empty(count, np.int32)
    pieces = 0
    for run in range(count):
        if parent[run] == run:
            piece[run] = pieces
            pieces += 1
        else:
            piece[run] = piece[parent[run]]
    total, void = np.zeros((pieces, fields + 1), np.int64), np.zeros(pieces, np.uint8)
    for y in range(height):
        for run in range(row_start[y], row_start[y + 1]):
            start = begin[run]
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            p = piece[run]
            void[p] = labels[y, start] < 0
            total[p, fields] += stop - start
            for field in range(fields):
                total[p, field] += sums[y, stop, field] - sums[y, start, field]
    merged = np.empty(pieces, np.int32)
    small = 0
    for p in range(pieces):
        merged[p] = p
        if total[p, fields] < smallest and not void[p]:
            small += 1
    if small:
        _merge(row_start, begin, piece, total, void, smallest, merged, width)
    number = np.full(pieces, -1, np.int32)
    regions = 0
    for y in range(height):
        for run in range(row_start[y], row_start[y + 1]):
            root = _find(merged, piece[run])
            if number[root] < 0 and not void[root]:
                number[root] = regions
                regions += 1
            identity = number[root]
            stop = begin[run + 1] if run + 1 < row_start[y + 1] else width
            for x in range(begin[run], stop):
                out[y, x] = identity
    return regions


@compiled("void(i2[:,:,::1], i4[:,:,::1])")
def running_sums(lab: NDArray[np.int16], sums: NDArray[np.int32]) -> None:
    """Sums (H, W + 1, 3) along each row of colours (3, H, W), as `selfseg.ops.kernels.slic_cpu.to_lab` fills them."""
    height, width = lab.shape[1:]
    for y in range(height):
        row, light, a, b = sums[y], lab[0, y], lab[1, y], lab[2, y]
        total_l = total_a = total_b = np.int32(0)
        row[0, 0] = row[0, 1] = row[0, 2] = 0
        for x in range(width):
            total_l += light[x]
            total_a += a[x]
            total_b += b[x]
            row[x + 1, 0] = total_l
            row[x + 1, 1] = total_a
            row[x + 1, 2] = total_b


@compiled("i8(i4[:,::1], i8, i4[:,::1])")
def densify(labels: NDArray[np.int32], centres: int, out: NDArray[np.int32]) -> int:
    """Renumber labels densely in raster order, but for those below 0, which become -1; returns how many there are."""
    number = np.full(centres, -1, np.int32)
    regions = 0
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            label = labels[y, x]
            if label < 0:
                out[y, x] = -1
                continue
            if number[label] < 0:
                number[label] = regions
                regions += 1
            out[y, x] = number[label]
    return regions
