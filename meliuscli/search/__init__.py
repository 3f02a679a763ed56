"""Search for the best network under an OPs budget: the space, Pareto arithmetic, proposals, and the study."""
