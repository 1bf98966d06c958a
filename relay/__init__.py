"""The open front door for real-time voice bots."""

__version__ = "0.1.0.dev0"
