//! Code generated from Causeway's .proto files, a module a package. No logic lives here; the types stay at the
//! edges of the crates that use them and become domain types there.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    rustdoc::invalid_html_tags,
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "generated code; the .proto files carry the documentation"
)]

/// `causeway.wire.v1`: handshake payloads and stanzas.
pub mod wire {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/causeway.wire.v1.rs"));
    }
}
/// `causeway.content.v1`: what is inside the end-to-end encryption.
pub mod content {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/causeway.content.v1.rs"));
    }
}
#[cfg(feature = "grpc")]
/// `causeway.directory.v1`: services of key-directory.
pub mod directory {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/causeway.directory.v1.rs"));
    }
}
#[cfg(feature = "grpc")]
/// `causeway.routing.v1`: the stream between edge and routing.
pub mod routing {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/causeway.routing.v1.rs"));
    }
}
/// `causeway.media.v1`: tickets of media-relay.
pub mod media {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/causeway.media.v1.rs"));
    }
}
