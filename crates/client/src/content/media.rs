//! Media as it is named in a message.

/// What kind of media a message carries; a hint for showing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A video.
    Video,
    /// A voice message.
    Voice,
    /// Any other file.
    File,
}

/// Where a ciphertext is, how to read it, and what it holds (docs/protocol.md, section 9).
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// On the sender's provider's media host, at most 2048 bytes.
    pub url: String,
    /// AES-256-GCM key.
    pub key: [u8; 32],
    /// SHA-256 of the whole ciphertext.
    pub ciphertext_sha256: [u8; 32],
    /// Bytes of ciphertext.
    pub ciphertext_size: u64,
    /// Bytes of plaintext.
    pub size: u64,
    /// For example `image/png`, at most 128 bytes.
    pub mime_type: String,
    /// File name without a path, at most 255 bytes.
    pub name: String,
    /// Pixels; 0: unknown.
    pub width: u32,
    /// Pixels; 0: unknown.
    pub height: u32,
    /// Milliseconds; 0: unknown or none.
    pub duration_ms: u64,
    /// A small preview, at most 16 KiB; may be empty.
    pub thumbnail: Vec<u8>,
    /// Text that goes with it, at most 64 KiB.
    pub caption: String,
}

/// Shows sizes only: the key, the place and the names are the users' secrets.
impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Media").field("kind", &self.kind).field("size", &self.size).finish_non_exhaustive()
    }
}
