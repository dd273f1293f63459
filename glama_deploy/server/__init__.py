"""`glama-serve`: a server around one engine, with a page and the interfaces of IOPaint and lama-cleaner.

`app.py` makes the application. `interfaces/` has one file for each interface. In `work/`, `waiting_line.py` bounds what
waits, `engine.py` holds the one engine, and `filling.py` turns the bytes of a picture and a mask into the bytes of a
result. `safety/` keeps out what could harm. Of this project's packages, only :mod:`glama_deploy.cli` imports this one.
"""
