"""The small world: pictures, captions and benchmarks whose every fact is known.

`vocabulary` lists the words, `scenes` samples what a picture shows, `layout` places it, `draw`
draws it, `grammar` describes it, `foils` makes texts that are false of it. `corpora`, `benchmarks`
and `similarity` lay the sets out as the official ones are; `build` writes the whole folder.
"""
