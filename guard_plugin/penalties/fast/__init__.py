"""Faster ways to the same penalties and gradients."""
