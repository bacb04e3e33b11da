"""Which picture: the samples of packs, their labels and companions. Works without torch."""
