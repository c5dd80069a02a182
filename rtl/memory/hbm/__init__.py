"""Controller of one pseudo-channel of an HBM stack."""
