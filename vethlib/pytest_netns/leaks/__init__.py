"""The leak watch: find what a test leaves behind in network namespaces."""
