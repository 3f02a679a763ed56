"""Data sets as tensors: a catalog by name, readers of their files, batches and augmentation."""
