"""The compiled CPU kernels of `selfseg.ops.crf`: the permutohedral lattice, the smoothness kernel, one round's sum.

Imported on the first call only, see `selfseg.ops._slic_cpu`. Letters: N pixels, C classes, M lattice vertices, F values
kept per vertex (C - 1, rounded up to whole vectors).

Speed comes from three things. The values of a vertex lie together and are read as vectors of `width` numbers, which
numba's own loops over a few channels are not. Vertices are numbered as the raster first meets them, so that neighbours
in the image are near in memory. And the blur runs along chains of neighbouring vertices in place, which reads each
value once; vertices without a neighbour along an axis, about a quarter, are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from selfseg.ops._slic_cpu import compiled

D = 5  # x, y, red, green, blue
FIELD = 12  # bits of each packed coordinate
_LOW = 3  # bits of the remainder
_HALF = 1 << (FIELD - 1)
BLOCK = 2048  # numbers that are worked on together, so that they stay in a core's cache
RUN = 64  # pixels whose vertices are looked for together


def _vector(context: Any, builder: Any, array_type: Any, array: Any, index: Any, width: int) -> tuple[Any, Any]:
    """Where `width` float32 from `index` on lie, and their type."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    kind = ir.VectorType(ir.FloatType(), width)
    place = builder.gep(data, [index])
    return builder.bitcast(place, kind.as_pointer()), kind


def _spread(builder: Any, value: Any, kind: Any, width: int) -> Any:
    vector = ir.Constant(kind, ir.Undefined)
    for lane in range(width):
        vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), lane))
    return vector


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _add_scaled(typing: Any, width: Any, into: Any, i: Any, values: Any, j: Any, factor: Any) -> Any:
    """into[i : i + width] += factor * values[j : j + width]."""
    lanes = width.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, target, at, source, start, scale = arguments
        there, kind = _vector(context, builder, signature.args[1], target, at, lanes)
        here, _ = _vector(context, builder, signature.args[3], source, start, lanes)
        product = builder.fmul(builder.load(here, align=4), _spread(builder, scale, kind, lanes))
        builder.store(builder.fadd(builder.load(there, align=4), product), there, align=4)
        return context.get_dummy_value()

    return types.void(width, into, types.int64, values, types.int64, types.float32), code


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _read_off(
    typing: Any, width: Any, into: Any, c: Any, lattice: Any, fields: Any, vertex: Any, share: Any, first: Any
) -> Any:
    """into[c : c + width] = the sum of share[k] * lattice[vertex[k] * fields + c] over the six k from `first` on."""
    lanes = width.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, target, channel, source, row, corners, weights, start = arguments
        long = ir.IntType(64)
        total = None
        for corner in range(D + 1):
            at = builder.add(start, ir.Constant(long, corner))
            data = [
                cgutils.create_struct_proxy(signature.args[n])(context, builder, array).data
                for n, array in ((5, corners), (6, weights))
            ]
            where = builder.sext(builder.load(builder.gep(data[0], [at])), long)
            place = builder.add(builder.mul(where, row), channel)
            there, kind = _vector(context, builder, signature.args[3], source, place, lanes)
            weight = _spread(builder, builder.load(builder.gep(data[1], [at])), kind, lanes)
            part = builder.fmul(builder.load(there, align=4), weight)
            total = part if total is None else builder.fadd(total, part)
        here, _ = _vector(context, builder, signature.args[1], target, channel, lanes)
        builder.store(total, here, align=4)
        return context.get_dummy_value()

    return types.void(width, into, types.int64, lattice, types.int64, vertex, share, types.int64), code


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _blur_step(typing: Any, width: Any, values: Any, i: Any, following: Any, before: Any, c: Any) -> Any:
    """values[i] += (before[c] + values[following]) / 2, then before[c] = the old values[i]; `width` numbers each."""
    lanes = width.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, array, at, after, kept, channel = arguments
        here, kind = _vector(context, builder, signature.args[1], array, at, lanes)
        there, _ = _vector(context, builder, signature.args[1], array, after, lanes)
        memory, _ = _vector(context, builder, signature.args[4], kept, channel, lanes)
        old = builder.load(here, align=4)
        both = builder.fadd(builder.load(memory, align=4), builder.load(there, align=4))
        half = _spread(builder, ir.Constant(ir.FloatType(), 0.5), kind, lanes)
        builder.store(builder.fadd(old, builder.fmul(half, both)), here, align=4)
        builder.store(old, memory, align=4)
        return context.get_dummy_value()

    return types.void(width, values, types.int64, types.int64, before, types.int64), code


@compiled("i8(i8, i8)")
def _home(key: int, mask: int) -> int:
    """Where in a hash table a key's search begins."""
    mixed = (key ^ (key >> 31)) * np.int64(-7046029254386353131)  # 2^64 / the golden ratio
    return (mixed ^ (mixed >> 32)) & mask


@compiled("void(i8[::1], i8, i8[:,::1], i8[::1], i8[::1])")
def _peek(
    keys: NDArray[np.int64], count: int, table: NDArray[np.int64], home: NDArray[np.int64], seen: NDArray[np.int64]
) -> None:
    """What the table holds where the search for each key begins.

    Reading many places at once, without a decision in between, hides the memory's latency: twice as fast.
    """
    mask = table.shape[0] - 1
    for i in range(count):
        home[i] = _home(keys[i], mask)
    for i in range(count):
        seen[i] = table[home[i], 0]


@compiled("i8(i8[:,::1], i8, i8)")
def _slot(table: NDArray[np.int64], key: int, place: int) -> int:
    """Where in the table `key` is, or would be put, from `place` on."""
    mask = table.shape[0] - 1
    while table[place, 0] != key and table[place, 0] >= 0:
        place = (place + 1) & mask
    return place


@compiled("void(i8, i8, u1[:,:,::1], f4[::1], i8[::1], f4[::1], f4[::1], f4[::1], i4[::1], i4[::1])")
def _simplex(
    y: int,
    x: int,
    image: NDArray[np.uint8],
    scale: NDArray[np.float32],
    corners: NDArray[np.int64],
    weight: NDArray[np.float32],
    lifted: NDArray[np.float32],
    rest: NDArray[np.float32],
    nearest: NDArray[np.int32],
    rank: NDArray[np.int32],
) -> None:
    """The corners (6), packed, and the barycentric coordinates (7, of which 6 count) of a pixel's simplex.

    The last four arguments (6) are workspace; `nearest` is in units of D + 1.
    """
    total = np.float32(0)
    for i in range(D, 0, -1):
        if i > 2:
            value = np.float32(image[y, x, i - 3]) - np.float32(127.5)
        elif i == 2:
            value = np.float32(y) - np.float32(0.5) * np.float32(image.shape[0])
        else:
            value = np.float32(x) - np.float32(0.5) * np.float32(image.shape[1])
        value *= scale[i - 1]
        lifted[i] = total - np.float32(i) * value
        total += value
    lifted[0] = total
    excess = 0
    for i in range(D + 1):
        nearest[i] = np.int32(np.floor(lifted[i] * np.float32(1 / (D + 1)) + np.float32(0.5)))
        rest[i] = lifted[i] - np.float32(D + 1) * np.float32(nearest[i])
        excess += nearest[i]
        rank[i] = 0
    for i in range(D):
        for j in range(i + 1, D + 1):
            less = rest[i] < rest[j]
            rank[i] += 1 if less else 0
            rank[j] += 0 if less else 1
    weight[:] = 0
    for i in range(D + 1):
        rank[i] += excess
        turn = 1 if rank[i] < 0 else (-1 if rank[i] > D else 0)  # back to where coordinates add up to 0
        rank[i] += turn * (D + 1)
        nearest[i] += turn
        part = rest[i] * np.float32(1 / (D + 1)) - np.float32(turn)
        weight[D - rank[i]] += part
        weight[D + 1 - rank[i]] -= part
    weight[0] += np.float32(1) + weight[D + 1]
    for corner in range(D + 1):
        key = np.int64(0)
        for i in range(D):
            up = nearest[i] - (1 if rank[i] > D - corner else 0)
            key = (key << FIELD) | np.int64(up + _HALF)
        corners[corner] = (key << _LOW) | corner


@compiled("i8(u1[:,:,::1], f4[::1], i8[::1], i8[:,::1], i4[::1], f4[::1])")
def locate(
    image: NDArray[np.uint8],
    scale: NDArray[np.float32],
    keys: NDArray[np.int64],
    table: NDArray[np.int64],
    vertex: NDArray[np.int32],
    share: NDArray[np.float32],
) -> int:
    """The simplex that holds each pixel (Adams et al., section 3.1).

    Args:
        image: (H, W, 3).
        scale: (5), factors from x, y, red, green and blue to the lattice's space.
        keys: filled with the packed coordinates of vertices, in the order in which they are met.
        table: (a power of two, 2), all -1; filled: the hash table, keys and their vertices.
        vertex: (N * 6), filled: the corners of each pixel's simplex.
        share: (N * 6), filled: its barycentric coordinates in it.

    Returns:
        The number of vertices, or -1 if more than half of `table` or all of `keys` would be filled.
    """
    height, width = image.shape[:2]
    capacity = min(keys.shape[0], table.shape[0] // 2)
    corners = np.empty(RUN * (D + 1), np.int64)
    home, seen = np.empty_like(corners), np.empty_like(corners)
    weight = np.empty(D + 2, np.float32)
    lifted, rest = np.empty(D + 1, np.float32), np.empty(D + 1, np.float32)
    nearest, rank = np.empty(D + 1, np.int32), np.empty(D + 1, np.int32)
    count = 0
    for y in range(height):
        for left in range(0, width, RUN):
            run = min(RUN, width - left)
            first = (y * width + left) * (D + 1)
            for i in range(run):
                mine = corners[i * (D + 1) : (i + 1) * (D + 1)]
                _simplex(y, left + i, image, scale, mine, weight, lifted, rest, nearest, rank)
                for corner in range(D + 1):
                    share[first + i * (D + 1) + corner] = weight[corner]
            _peek(corners, run * (D + 1), table, home, seen)
            for i in range(run * (D + 1)):
                key, place = corners[i], home[i]
                if seen[i] != key:
                    place = _slot(table, key, place)
                    if table[place, 0] < 0:
                        if count >= capacity:
                            return -1
                        keys[count] = key
                        table[place, 0], table[place, 1] = key, count
                        count += 1
                vertex[first + i] = table[place, 1]
    return count


@compiled("i8(i8[::1], i8, i8[:,::1], i4[::1], i4[::1], i4[::1], i8[::1])")
def link(
    keys: NDArray[np.int64],
    count: int,
    table: NDArray[np.int64],
    following: NDArray[np.int32],
    preceded: NDArray[np.int32],
    chains: NDArray[np.int32],
    starts: NDArray[np.int64],
) -> int:
    """Chains of neighbouring vertices along each of the six axes; each ends with `count`. Alone = in no chain.

    Args:
        keys: of `locate`.
        count: of `locate`.
        table: of `locate`.
        following: (M), workspace.
        preceded: (M), workspace.
        chains: (9 * M), filled.
        starts: (7), filled: where each axis begins in `chains`.

    Returns:
        The numbers in `chains`.
    """
    end = 0
    all_units = np.int64(0)
    for i in range(D):
        all_units += np.int64(1) << (_LOW + FIELD * i)
    wanted = np.empty(BLOCK, np.int64)
    home, seen = np.empty_like(wanted), np.empty_like(wanted)
    for axis in range(D + 1):
        starts[axis] = end
        unit = np.int64(0) if axis == D else np.int64(1) << (_LOW + FIELD * (D - 1 - axis))
        preceded[:count] = 0
        for first in range(0, count, BLOCK):
            size = min(BLOCK, count - first)
            for i in range(size):
                # All coordinates fall by 1 and that of the axis rises by D; remainder r becomes r - 1, and 0 becomes D.
                key = keys[first + i]
                wanted[i] = key + unit - 1 if key & 7 else key + unit - all_units + D
            _peek(wanted, size, table, home, seen)
            for i in range(size):
                found = np.int64(-1)
                if seen[i] >= 0:
                    place = home[i] if seen[i] == wanted[i] else _slot(table, wanted[i], home[i])
                    found = table[place, 1]
                following[first + i] = found
                if found >= 0:
                    preceded[found] = 1
        for v in range(count):
            if preceded[v] or following[v] < 0:
                continue
            here = np.int64(v)
            while here >= 0:
                chains[end] = here
                end += 1
                here = np.int64(following[here])
            chains[end] = count
            end += 1
    starts[D + 1] = end
    return end


@compiled("void(f4[::1], f4[::1], i8, f4[::1], f4[::1], f4[::1], f4, f4[::1])")
def smooth(
    values: NDArray[np.float32],
    scores: NDArray[np.float32],
    step: int,
    taps: NDArray[np.float32],
    across: NDArray[np.float32],
    down: NDArray[np.float32],
    gain: np.float32,
    work: NDArray[np.float32],
) -> None:
    """Add the smoothness kernel's sums to the scores: a Gaussian along rows, then along columns.

    Args:
        values: (N * step), read.
        scores: (N * step), added to.
        step: values of a pixel.
        taps: (radius + 1), the Gaussian from its middle on.
        across: (W * step), 1 / sqrt of a row's sum of taps at each value's x.
        down: (H), likewise at each y.
        gain: a factor.
        work: (N * step), workspace.
    """
    length, height, radius = across.shape[0], down.shape[0], taps.shape[0] - 1
    margin = radius * step
    row = np.zeros(length + 2 * margin, np.float32)
    total, nothing = np.zeros(length, np.float32), np.zeros(length, np.float32)
    for y in range(height):
        line = values[y * length : (y + 1) * length]
        into = work[y * length : (y + 1) * length]
        for j in range(length):
            row[margin + j] = line[j] * across[j]
            into[j] = taps[0] * row[margin + j]
        for t in range(1, radius + 1):
            tap, before, after = taps[t], row[margin - t * step :], row[margin + t * step :]
            for j in range(length):
                into[j] += tap * (before[j] + after[j])
        for j in range(length):
            into[j] *= across[j] * down[y]
    for y in range(height):
        line = work[y * length : (y + 1) * length]
        for j in range(length):
            total[j] = taps[0] * line[j]
        for t in range(1, radius + 1):
            tap = taps[t]
            before = work[(y - t) * length : (y - t + 1) * length] if y >= t else nothing
            after = work[(y + t) * length : (y + t + 1) * length] if y + t < height else nothing
            for j in range(length):
                total[j] += tap * (before[j] + after[j])
        into, factor = scores[y * length : (y + 1) * length], gain * down[y]
        for j in range(length):
            into[j] += factor * total[j]


@compiled("void(f4[:,::1], f4[::1])")
def softmax(scores: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Softmax over C of (N, C), to (N * C), within 3e-7.

    torch's is several times as slow for so few classes. exp(x) = 2^n 2^f with x log2(e) = n + f; the polynomial is
    Taylor's of 2^f around 0, |f| <= 1/2.
    """
    pixels, classes = scores.shape
    rows = max(1, BLOCK // classes)
    power = np.empty(rows * classes, np.float32)
    bits = np.empty(rows * classes, np.int32)
    whole = bits.view(np.float32)
    for start in range(0, pixels, rows):
        stop = min(start + rows, pixels)
        for i in range(start, stop):
            row = scores[i]
            most = row[0]
            for c in range(1, classes):
                most = row[c] if row[c] > most else most
            at = (i - start) * classes
            for c in range(classes):
                power[at + c] = (row[c] - most) * np.float32(1.4426950408889634)
        length = (stop - start) * classes
        for j in range(length):
            t = power[j] if power[j] > np.float32(-126) else np.float32(-126)
            n = np.floor(t + np.float32(0.5))
            f = t - n
            p = np.float32(1.5403530393381606e-4)
            p = p * f + np.float32(1.3333558146428443e-3)
            p = p * f + np.float32(9.618129107628477e-3)
            p = p * f + np.float32(5.550410866482158e-2)
            p = p * f + np.float32(2.402265069591007e-1)
            p = p * f + np.float32(6.931471805599453e-1)
            power[j] = p * f + np.float32(1)
            bits[j] = (np.int32(n) + np.int32(127)) << np.int32(23)
        for j in range(length):
            power[j] *= whole[j]
        for i in range(start, stop):
            at = (i - start) * classes
            total = np.float32(0)
            for c in range(classes):
                total += power[at + c]
            factor = np.float32(1) / total
            first = i * classes
            for c in range(classes):
                out[first + c] = power[at + c] * factor


@cache
def kernels(width: int) -> tuple[Callable[..., None], Callable[..., None], Callable[..., None]]:
    """`splat`, `blur` and `slice` for vectors of `width` numbers."""

    @compiled("void(f4[::1], i8, f4[::1], i4[::1], f4[::1], f4[::1], i8)")
    def splat(
        values: NDArray[np.float32],
        step: int,
        scale: NDArray[np.float32],
        vertex: NDArray[np.int32],
        share: NDArray[np.float32],
        lattice: NDArray[np.float32],
        fields: int,
    ) -> None:
        """Add the `fields` first of each pixel's `step` values, times its scale, to the corners of its simplex."""
        lattice[:] = 0
        for i in range(scale.shape[0]):
            for corner in range(i * (D + 1), (i + 1) * (D + 1)):
                factor = share[corner] * scale[i]
                start = np.int64(vertex[corner]) * fields
                for c in range(0, fields, width):
                    _add_scaled(width, lattice, start + c, values, i * step + c, factor)

    @compiled("void(f4[::1], i8, i4[::1], i8[::1])")
    def blur(lattice: NDArray[np.float32], fields: int, chains: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
        """Half of both neighbours is added to each vertex, along one axis after the other, in place."""
        none = lattice.shape[0] // fields - 1  # the last row is always 0: beyond the end of a chain
        before = np.zeros(fields, np.float32)
        for position in range(starts[D + 1]):
            here = np.int64(chains[position])
            if here == none:
                before[:] = 0
                continue
            following = np.int64(chains[position + 1])
            for c in range(0, fields, width):
                _blur_step(width, lattice, here * fields + c, following * fields + c, before, c)

    @compiled("void(f4[::1], i8, i4[::1], f4[::1], f4[::1], f4[::1], i8, f4[::1])")
    def slice_(
        lattice: NDArray[np.float32],
        fields: int,
        vertex: NDArray[np.int32],
        share: NDArray[np.float32],
        scale: NDArray[np.float32],
        total: NDArray[np.float32],
        step: int,
        scores: NDArray[np.float32],
    ) -> None:
        """Add what each pixel reads off its simplex, times its scale, to its `step` scores.

        The last class's share is what is missing from `total`, for probabilities add up to 1. Where there is one score
        it is the first class's lead over the second, to which twice the first class's share is added.
        """
        found = np.empty(fields, np.float32)
        for i in range(scale.shape[0]):
            for c in range(0, fields, width):
                _read_off(width, found, c, lattice, fields, vertex, share, i * (D + 1))
            rest, factor, first = total[i], scale[i], i * step
            if step == 1:
                scores[first] += np.float32(2) * factor * found[0]
                continue
            for c in range(step - 1):
                part = factor * found[c]
                scores[first + c] += part
                rest -= part
            scores[first + step - 1] += rest

    return splat, blur, slice_
