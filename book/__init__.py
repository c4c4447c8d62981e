"""The book: its pages, the measurements that single pages use, and what renders them."""
