"""Number types of the graph: half types, value ranges and int8."""
