"""Which labels are probably wrong, from their geometry, the images, predictions and second observers.

Nothing here learns from labels that somebody reviewed: every standard is the majority's, found robustly.
"""
