"""Whole scenes: georeferenced images that no memory holds, read and written by windows."""
