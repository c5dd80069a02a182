"""Proofs by model checking; ``make formal`` runs them."""
