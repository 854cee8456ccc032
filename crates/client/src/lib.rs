//! SDK for providers' clients: Noise, stanzas, Signal sessions, media, local state
