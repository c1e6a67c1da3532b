"""What watches over a training: `finite` (only numbers are kept), `replaying`, `collapse`, `recomputing`."""
