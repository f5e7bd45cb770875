"""One event loop per plugin: asyncio on one blocking zmq poller."""
