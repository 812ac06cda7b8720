"""One outside thing a module. Only `process` starts processes."""
