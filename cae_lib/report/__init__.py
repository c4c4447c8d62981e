"""What the book's pages show: tables, figures, verdicts and sentences, all computed from records."""
