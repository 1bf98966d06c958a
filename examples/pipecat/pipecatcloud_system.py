"""What a bot gets from `from pipecatcloud_system import app`: the application that serves it."""

from __future__ import annotations

from fastapi import FastAPI

# No generated documentation: the Session API would publish it to every holder of a public key.
app = FastAPI(openapi_url=None)
