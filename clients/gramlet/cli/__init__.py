"""The subcommands of `gramlet`, one module each.

A module has `HELP` (one line), `add_arguments(parser)`, and `run(arguments, client, terminal)`, which returns the exit
code. It is known by its name in `gramlet.cli.__main__.COMMANDS`. It may have `FIELDS`, the flags whose names differ
from the keywords of the SDK; with --resume, `WITH_RESUME`, the flags that have an effect beside it; and with several
actions, `OF_ACTIONS`: for each flag that some actions ignore, those that use it.
"""
