"""One module a verb: `add_arguments(parser)` and `run(args, client) -> exit code`.

A module is imported only when its verb is typed (see meshctl.cli), which keeps every verb's start short.
"""
