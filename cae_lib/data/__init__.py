"""Captions, pictures, benchmarks and the small world that writes them in their official layouts."""
