"""Check, execute and render the book's pages: text goes in, an executed notebook comes out."""
