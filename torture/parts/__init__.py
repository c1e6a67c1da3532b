"""A file per part, each with a function `run(work, quick)`."""
