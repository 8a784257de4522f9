"""The few pages that shoppers see: the way back to their cart, and the way out."""
