"""The account of a run: its ledger, what that proves, and the markers beside the files that it wrote."""
