"""Prediction with trained bundles."""
