"""Search for the best network under an OPs budget: the space, Pareto arithmetic, proposals, and the study."""

from meliuscli.work.packages import is_function_too

is_function_too(__name__)
