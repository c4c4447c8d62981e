"""The small world: pictures, captions and benchmarks whose every fact is known."""
