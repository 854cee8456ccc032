//! Real PostgreSQL and Redis servers for tests, each in a folder and on a port of its own.
