//! Both encodings say the same of every stanza.

use std::num::NonZeroU64;

use proptest::prelude::*;

use crate::{
    Blob, Encoding, FromClient, KeysPublish, List, Request, RequestBody, decode_client, decode_server, encode_client,
    encode_server, strategies, xml,
};

#[test]
fn an_empty_key_is_there_in_both_encodings() {
    let keys = KeysPublish {
        identity_key: Blob::try_from(&[][..]).unwrap(),
        signed_prekey: None,
        last_resort_kyber: None,
        ec_prekeys: List::new(),
        kyber_prekeys: List::new(),
    };
    let stanza = FromClient::Iq(Request { id: NonZeroU64::MIN, body: RequestBody::KeysPublish(keys) });
    for encoding in [Encoding::Binary, Encoding::Xml] {
        assert_eq!(decode_client(encoding, &encode_client(encoding, stanza.clone())), Ok(stanza.clone()));
    }
}

proptest! {
    #[test]
    fn a_clients_stanza_is_the_same_in_both_encodings(stanza in strategies::from_client()) {
        let as_xml = encode_client(Encoding::Xml, stanza.clone());
        let from_xml = decode_client(Encoding::Xml, &as_xml).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&from_xml, &stanza);
        let as_binary = encode_client(Encoding::Binary, from_xml);
        let from_binary = decode_client(Encoding::Binary, &as_binary).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&from_binary, &stanza);
        prop_assert_eq!(encode_client(Encoding::Xml, from_binary), as_xml);
    }

    #[test]
    fn a_servers_stanza_is_the_same_in_both_encodings(stanza in strategies::from_server()) {
        let as_xml = encode_server(Encoding::Xml, stanza.clone());
        let from_xml = decode_server(Encoding::Xml, &as_xml).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&from_xml, &stanza);
        let as_binary = encode_server(Encoding::Binary, from_xml);
        let from_binary = decode_server(Encoding::Binary, &as_binary).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&from_binary, &stanza);
        prop_assert_eq!(encode_server(Encoding::Xml, from_binary), as_xml);
    }

    /// What a client leaves out or adds for beauty does not change what a stanza means.
    #[test]
    fn white_space_and_unknown_attributes_change_nothing(stanza in strategies::from_client()) {
        let text = String::from_utf8(encode_client(Encoding::Xml, stanza.clone())).unwrap();
        let later = text.replacen(" xmlns=", "\n  from-the-future='1'\txmlns=", 1) + "\n";
        prop_assert_eq!(decode_client(Encoding::Xml, later.as_bytes()), Ok(stanza));
    }

    /// The early watch never stops what the parser would take.
    #[test]
    fn the_depth_watch_lets_every_stanza_pass(stanza in strategies::from_client(), piece in 1_usize..64) {
        let record = encode_client(Encoding::Xml, stanza);
        let mut watch = xml::DepthWatch::default();
        for bytes in record.chunks(piece) {
            prop_assert_eq!(watch.feed(bytes), Ok(()));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for encoding in [Encoding::Binary, Encoding::Xml] {
            if let Ok(stanza) = decode_client(encoding, &bytes) {
                prop_assert_eq!(decode_client(encoding, &encode_client(encoding, stanza.clone())), Ok(stanza));
            }
            if let Ok(stanza) = decode_server(encoding, &bytes) {
                prop_assert_eq!(decode_server(encoding, &encode_server(encoding, stanza.clone())), Ok(stanza));
            }
        }
    }
}
