"""The commands of ``guard``, one module each."""
