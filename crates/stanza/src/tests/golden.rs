//! Every kind of stanza in both encodings, as files: what was written once is read for ever, and written the same way.
//! `CAUSEWAY_GOLDEN=write` makes the files anew.

use std::fs;
use std::path::PathBuf;

use super::samples;
use crate::{Encoding, decode_client, decode_server, encode_client, encode_server};

fn compare(direction: &str, name: &str, encoding: Encoding, written: &[u8]) -> Vec<u8> {
    let ending = match encoding {
        Encoding::Binary => "bin",
        Encoding::Xml => "xml",
    };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(direction);
    let path = folder.join(format!("{name}.{ending}"));
    if std::env::var_os("CAUSEWAY_GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(&folder).expect("create the folder");
        fs::write(&path, written).expect("write the file");
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        String::from_utf8_lossy(&golden),
        String::from_utf8_lossy(written),
        "{} is not what is written now",
        path.display()
    );
    golden
}

#[test]
fn clients_stanzas_are_written_and_read_as_ever() {
    for (name, stanza) in samples::client() {
        for encoding in [Encoding::Binary, Encoding::Xml] {
            let golden = compare("client", name, encoding, &encode_client(encoding, stanza.clone()));
            assert_eq!(decode_client(encoding, &golden), Ok(stanza.clone()), "{name}");
        }
    }
}

#[test]
fn servers_stanzas_are_written_and_read_as_ever() {
    for (name, stanza) in samples::server() {
        for encoding in [Encoding::Binary, Encoding::Xml] {
            let golden = compare("server", name, encoding, &encode_server(encoding, stanza.clone()));
            assert_eq!(decode_server(encoding, &golden), Ok(stanza.clone()), "{name}");
        }
    }
}
