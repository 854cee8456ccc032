//! Ciphertext blobs: host role (upload, serve) and relay role (proxied download)
