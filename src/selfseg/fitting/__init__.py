"""What loops over steps need: stop signals, progress, a log (`stepping`); and the loop with labels (`supervised`).

Methods, which need no labels, are trained by `selfseg.training`.
"""
