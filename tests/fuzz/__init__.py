"""Random models under random specs: the graph backend against plain PyTorch."""
