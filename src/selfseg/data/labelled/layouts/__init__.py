"""Folders as people have them: `finding` tells how one is laid out, `left_over` what is not taken."""
