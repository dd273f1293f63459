"""The precision `fastest`: measured once on each machine for each bundle, and kept in the cache."""
