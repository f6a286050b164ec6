"""The processes of a run: the program that is run, and those that it starts."""
