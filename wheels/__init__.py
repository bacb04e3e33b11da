"""Build wheels that need no compiler and no system library: `make wheels`. RELEASE.md tells how they are published."""
