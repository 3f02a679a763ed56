"""meliuscli: count, train, search and compare binary neural networks."""

__version__ = "0.1.0"
