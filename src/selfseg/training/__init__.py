"""Recipes, the loop, checkpoints, schedules and logs."""
