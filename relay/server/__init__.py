"""The trio shell: listeners, connections, and the handlers of each route."""
