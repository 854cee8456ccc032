//! Typed stanzas with their XML and BINARY codecs; no I/O
