"""Map landslides where no labels exist: the Landslide4Sense loop as a library and a command."""

__version__ = "0.1.0"
