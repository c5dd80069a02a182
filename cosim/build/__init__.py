"""From a component to a shared library that the engine can step."""
