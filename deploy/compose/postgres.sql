-- Two databases in one server; in production each has a server with a synchronous standby (docs/operating.md).
CREATE DATABASE causeway_mailbox OWNER causeway;
