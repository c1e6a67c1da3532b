"""What every protocol shares.

`reading` (a split's images, ahead), `features` (what can be measured of a run), `passes` (over a split, once for
everything), `confusion` (counts and metrics), `results` (files and tables).
"""
