"""`make proof`: the same training run through the official pipeline and through this loader, compared bit for bit."""
