"""``python -m guard_plugin`` is ``guard``."""

from guard_plugin.cli import main

main()
