"""Which words of a caption name objects, attributes and relations, and which tokens they are."""
