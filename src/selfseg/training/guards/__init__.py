"""What watches over a training: `finite` (nothing that is no number is kept), `replaying`, `collapse`."""
