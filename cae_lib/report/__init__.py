"""What the book's pages show: tables, figures, verdicts and sentences, computed from records."""
