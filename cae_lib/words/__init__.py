"""Find the words of captions that name objects, attributes and relations, and their tokens."""
