"""The adapters that ship with guard-plugin, registered through entry points like anyone else's."""
