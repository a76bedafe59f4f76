"""Machine-learned particle flow: detector elements in, particles out."""

__version__ = "0.1.0"
