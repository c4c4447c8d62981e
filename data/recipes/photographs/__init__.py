"""Build matching items, training captions and retrieval data from Flickr8k, in official layouts."""
