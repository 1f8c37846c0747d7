"""What a token risks: the mathematics, real forward passes, and recorded paths."""
