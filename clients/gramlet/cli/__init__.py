"""The subcommands of `gramlet`, one module each.

A module has `HELP` (one line), `add_arguments(parser)`, and `run(arguments, client, terminal)`, which returns the exit
code. It is known by its name in `gramlet.cli.COMMANDS`.
"""
