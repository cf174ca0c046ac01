"""The verbs of the command line: one file each, with ``EXAMPLE``, ``add_arguments`` and ``run``."""
