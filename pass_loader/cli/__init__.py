"""The command `pass-pack`."""
