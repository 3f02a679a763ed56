"""The networks in torch. ``build.build(spec)`` is the only door."""
