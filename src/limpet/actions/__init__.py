"""One function a verb: joins core, formats and tools; never prints."""
