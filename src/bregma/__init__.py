"""Bregma: medical images to anatomical landmarks, landmarks to measurements with an honest error bar."""

__version__ = "0.1.0"
