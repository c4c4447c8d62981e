"""Build the synthetic scenes: images, captions and benchmarks, of which every fact is known."""
