"""What a training step and a look at an image cost on this machine: begin at `steps` (`time_recipe`).

`recorder` keeps time and memory of the phases that a step tells; `inference` measures an image by clusters against a
linear model; `tables` is what the screen and the JSON show.
"""
