"""Radar chips: generated ones, and those that others have published."""
