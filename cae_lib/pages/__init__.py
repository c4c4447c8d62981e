"""The book's pages: text in, executed notebook out, checked and rendered."""
