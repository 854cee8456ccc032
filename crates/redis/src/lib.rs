//! How services use Redis: configuration, one connection over single, Sentinel and Cluster, health.
