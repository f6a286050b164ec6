"""What the adapters recommend: h and strength for the paper's images; h follows the size of others."""

__all__ = ["SETTINGS", "SETTINGS_FOR"]

# Section 5.1 of the paper, with the values of its authors' code; docs/measurements.md has what they do at other sizes.
SETTINGS = {"gradient": {"h": 3.0, "strength": 100.0}, "loss": {"h": 3.0, "strength": 1.0}}
SETTINGS_FOR = (3, 224, 224)
