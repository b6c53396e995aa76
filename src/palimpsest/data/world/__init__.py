"""The generated world: a small consistent universe, and the documents, edits, questions and text that tell of it."""
