//! How services use PostgreSQL: configuration, connections, migrations, what may be retried.
