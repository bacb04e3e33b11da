"""Batches: datasets, order, rendering on threads, the DataLoader. Needs torch."""
