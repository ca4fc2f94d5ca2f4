"""capgap: what a distilled language model got from its teacher, what it did not, why, and what would close the gap."""

__all__ = ["__version__"]

__version__ = "0.1.0"
