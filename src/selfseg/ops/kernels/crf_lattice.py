"""The permutohedral lattice that the kernels of `selfseg.ops.crf` share: its dimensions, and how a vertex is packed."""

D = 5  # x, y, red, green, blue
FIELD, LOW = 12, 3  # bits of a packed coordinate, and of the remainder
HALF = 1 << (FIELD - 1)
