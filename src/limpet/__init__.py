"""limpet: a Python environment as one locked file that runs on any cluster."""

__version__ = "0.1.0.dev0"
