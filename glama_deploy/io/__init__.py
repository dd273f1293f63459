"""Pictures and masks in and out, the cache folder, locks and atomic writes."""
