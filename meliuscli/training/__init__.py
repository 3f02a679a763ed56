"""Short trainings: a recipe (a value), a loop (tensors in, metrics out), one recorded run."""
