"""Networks: built by name, loaded from checkpoints, given pixels."""
