"""The parts, one module each: `run(work: Path, quick: bool) -> list[Row]` and a sentence PROMISE."""
