"""Training by several processes, on one machine or on many.

`launching` finds out who started the processes (torchrun, srun, or ourselves) and makes Fabric of it; `watching` ends a
process when another one of its run has died or was stopped. Begin with `launching.make_fabric`.
"""
