"""Folders that verbs write into: whose they are, who is at work in them, and what no longer belongs there."""
