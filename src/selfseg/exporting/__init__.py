"""What a run has learned, for other projects. The folder isn't called `export` because that is the public function."""
