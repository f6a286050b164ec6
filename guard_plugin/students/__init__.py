"""Students: networks trained on distilled sets."""
