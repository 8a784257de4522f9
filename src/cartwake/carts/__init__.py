"""Carts: checkout sessions from first sight to order, when they count as abandoned, and the way back to them."""
