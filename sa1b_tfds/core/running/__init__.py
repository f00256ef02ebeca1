"""Tasks in worker processes, such as the tars of a build or the pieces of an export."""
