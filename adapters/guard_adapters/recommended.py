"""What the adapters recommend: h and strength for the paper's images; h follows the size of others."""

__all__ = ["SETTINGS", "SETTINGS_FOR"]

# The gradient form's are the paper's (section 5.1), the loss form's strength was measured: docs/measurements.md.
SETTINGS = {"gradient": {"h": 3.0, "strength": 100.0}, "loss": {"h": 3.0, "strength": 3.0}}
SETTINGS_FOR = (3, 224, 224)
