"""The same batches on a GPU. Needs torch."""
