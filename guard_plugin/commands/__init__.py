"""The commands of ``guard``, each with its options and what it prints."""
