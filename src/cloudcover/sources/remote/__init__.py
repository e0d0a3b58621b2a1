"""Sets on object stores and web servers."""
