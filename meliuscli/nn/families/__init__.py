"""One file a family: how its spec becomes modules."""
