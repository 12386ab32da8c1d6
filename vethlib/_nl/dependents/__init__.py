"""Messages about what depends on a link: routes, neighbours, queueing disciplines and impairment."""
