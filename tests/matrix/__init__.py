"""Every kind of spec in every surrounding that people train in, against plain PyTorch in the same."""
