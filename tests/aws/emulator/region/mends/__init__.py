"""What moto does otherwise than AWS, mended in place. Each file mends one subject; moto's version is pinned for their sake."""
