"""Region contrast for selfseg: an example of a method in a package of its own."""
