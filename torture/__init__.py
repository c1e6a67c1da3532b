"""Promises that are kept, tried: kills, damage, want of memory and network."""
