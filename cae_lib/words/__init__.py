"""Find the words of a caption that name objects, attributes and relations, and their tokens."""
