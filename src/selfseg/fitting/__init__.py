"""What loops over steps need, and the loop with labels.

`stepping` has stop signals, progress and a log, `memory` keeps memory from one step to the next, `supervised` is the
loop. Methods, which need no labels, are trained by `selfseg.training`.
"""
