//! The one guarded HTTP client for everything that a provider hosts
