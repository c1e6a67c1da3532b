"""The parts of `benchmarks/gpu.py`, a file each.

Each module has a function `run(job)`, which measures and hands its rows to `job` one at a time, so that what was
measured before a failure is kept. `harness.py` has the clock, the comparison and the table; begin there.
"""
