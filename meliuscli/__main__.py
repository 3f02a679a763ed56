"""``python -m meliuscli``."""

from meliuscli.cli.app import main

if __name__ == "__main__":
    main()
