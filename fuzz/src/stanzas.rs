//! What must hold for whatever the stanza codecs accept.

use causeway_stanza::{
    Encoding, FromClient, FromServer, MAX_RECORD_BYTES, MAX_SERVER_RECORD_BYTES, decode_client, decode_server,
    encode_client, encode_server,
};

/// An accepted stanza means the same in both encodings, and its own writing is stable. One that fits into a record in
/// one encoding may be too large for one in the other.
pub fn client_agrees(stanza: &FromClient) {
    for encoding in [Encoding::Binary, Encoding::Xml] {
        let written = encode_client(encoding, stanza.clone());
        if written.len() <= MAX_RECORD_BYTES {
            let read = decode_client(encoding, &written).expect("what we write we read");
            assert_eq!(&read, stanza);
            assert_eq!(encode_client(encoding, read), written);
        }
    }
}

/// As [`client_agrees`], for what servers send.
pub fn server_agrees(stanza: &FromServer) {
    for encoding in [Encoding::Binary, Encoding::Xml] {
        let written = encode_server(encoding, stanza.clone());
        if written.len() <= MAX_SERVER_RECORD_BYTES {
            let read = decode_server(encoding, &written).expect("what we write we read");
            assert_eq!(&read, stanza);
            assert_eq!(encode_server(encoding, read), written);
        }
    }
}
