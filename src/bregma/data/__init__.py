"""Datasets on their way into training: splits, fingerprints, audits, augmentation and loading."""
