"""One file a family, called as that of its spec. Its ``build(spec, clip_threshold)`` makes the modules, whose names are
those of ``spec.layers()``; families with a clip of their own pass it over."""
