"""The engines at run time: a file or folder for each, behind one interface, and the choice among them."""
