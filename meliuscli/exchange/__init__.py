"""Networks in: files of other programs read into our specs and weights, and files of ours opened to be used. Nothing that a
file holds is executed."""
