"""The commands with their options, and the exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generators.markup import code, prose, table


def commands_page() -> str:
    import typer

    from meliuscli.cli.app import make_app

    group: Any = typer.main.get_command(make_app([]))
    parts = [
        "# Commands\n",
        "`meliuscli COMMAND --help` says the same. Four options stand in any place of a command line:\n",
        _options(group.params, _context(group)),
        *(_command(name, command) for name, command in group.commands.items()),
    ]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    context = _context(command, name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    example = str(command.epilog).removeprefix("Example: ")
    return "\n".join(
        [
            f"## {name}\n",
            f"{command.help}\n",
            f"```text\n{usage}\n```\n",
            _options(command.params, context),
            f"Example: `{example}`\n",
        ]
    )


def _context(command: Any, name: str = "") -> Any:
    return command.make_context(f"meliuscli {name}".strip(), [], resilient_parsing=True)


def _options(params: Sequence[Any], context: Any) -> str:
    """A row an argument or option, as the help has it: how it is written, and what it does."""
    records = [param.get_help_record(context) for param in params]
    return table(["", "what it does"], [[code(record[0]), record[1]] for record in records if record is not None])


def exit_codes_page() -> str:
    from meliuscli import errors

    classes = [
        errors.FailedError,
        errors.BadInputError,
        errors.MissingError,
        errors.InterruptedByUser,
        errors.MeliusError,
    ]
    rows = [["0", "done: stdout is the answer", ""]]
    rows += [[str(one.exit_code), prose(one.__doc__).partition("\n")[0], code(one.__name__)] for one in classes[:-1]]
    rows.append(["70", "A fault of meliuscli itself. The message asks to report it.", "any other exception"])
    return "\n".join(
        [
            "# Exit codes\n",
            "The answer goes to stdout, and everything else to stderr. An error is a message, and mostly a hint that says"
            " what to do. In Python the same errors are exceptions of the type in the last column.\n",
            table(["code", "when", "in Python"], rows),
        ]
    )
