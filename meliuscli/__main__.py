"""``python -m meliuscli``, and what the installed command calls."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    heard = signal.getsignal(signal.SIGINT)
    if heard is signal.default_int_handler:
        # While the commands are loaded nothing is begun that would have to be put in order: Ctrl-C ends us as the system does.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from meliuscli.cli.app import main as run

    signal.signal(signal.SIGINT, heard)
    run()


if __name__ == "__main__":
    main()
