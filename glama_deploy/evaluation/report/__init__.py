"""The results of an evaluation: figures, tables, pictures and the HTML page."""
