"""Packs in object stores and on web servers, read through a cache folder on a local disk."""
