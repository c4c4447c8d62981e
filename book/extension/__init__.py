"""What the pages of the book share, what executes and renders them, and the Sphinx extension."""
