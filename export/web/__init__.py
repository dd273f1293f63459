"""Static sites that run a network in the visitor's browser: `glama-export --target web`."""
