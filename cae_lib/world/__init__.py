"""The small world: pictures, captions and benchmarks whose every fact is known.

`scenes` are drawn by `draw`, described by `grammar`, belied by `foils`; `build` writes all sets.
"""
