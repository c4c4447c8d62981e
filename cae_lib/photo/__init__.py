"""Sets of choices, training captions and retrieval from Flickr8k, in the official layouts."""
