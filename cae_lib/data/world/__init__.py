"""The small world: pictures, captions and benchmarks whose every fact is known.

`vocabulary` lists the words, `scenes` samples what a picture shows, `layout` places it, `draw`
draws it, `grammar` describes it. `statements`, `truth` and `foils` make texts that are false of a
picture. `export` writes the sets in their official layouts, and `build` makes the whole folder.
"""
