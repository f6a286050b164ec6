"""The paper's Tables 1, 2, 3 and 5, cell by cell: ``python -m examples.reproduce``."""
