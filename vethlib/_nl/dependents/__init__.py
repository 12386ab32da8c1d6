"""Messages about what depends on a link: routes, neighbours, its port of a bridge, queueing and impairment."""
