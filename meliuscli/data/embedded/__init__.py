"""The data set that is inside the package, its licence, and the script that made it."""
