//! A message that is encoded once and sent many times, each time with another id.

use anyhow::Context as _;
use bytes::Bytes;
use causeway_identity::{Address, DeviceId, MessageId};
use causeway_stanza::{
    Ciphertext, Enc, EncList, EncType, Encoding, FromClient, MessageClass, RegistrationId, Submit, encode_client,
};

/// A message's record, but for its id.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    record: Vec<u8>,
    /// Where the id is.
    id: usize,
}

/// What the id is while its place is looked for.
const PLACE: [u8; 16] = *b"place of the id!";

impl Template {
    /// A chat message with a body of so many bytes for each device.
    pub(crate) fn new(to: &Address, devices: &[(DeviceId, RegistrationId)], body: usize) -> anyhow::Result<Self> {
        // Ciphertext has no pattern; nothing on the way looks into it.
        let body: Vec<u8> = (0..body).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
        let body = Bytes::from(body);
        let enc = devices.iter().map(|(device, registration)| {
            let ciphertext = Ciphertext::try_from(body.clone()).ok().context("--body is empty or too large")?;
            Ok(Enc { device: *device, registration: *registration, kind: EncType::Whisper, ciphertext })
        });
        let enc = EncList::try_from(enc.collect::<anyhow::Result<Vec<_>>>()?);
        let enc = enc.map_err(|error| anyhow::anyhow!("{error}"))?;
        let id = MessageId::try_from(&PLACE[..]).ok().context("an id")?;
        let message = FromClient::Message(Submit { id, to: to.clone(), class: MessageClass::Chat, enc });
        let record = encode_client(Encoding::Binary, message);
        let id = record.windows(PLACE.len()).position(|bytes| bytes == PLACE).context("the place of the id")?;
        Ok(Self { record, id })
    }

    /// The record with this id.
    pub(crate) fn with(&mut self, id: [u8; 16]) -> &[u8] {
        self.record[self.id..self.id + id.len()].copy_from_slice(&id);
        &self.record
    }
}

#[cfg(test)]
mod tests {
    use causeway_stanza::decode_client;

    use super::*;

    #[test]
    fn only_the_id_changes() {
        let registration = RegistrationId::new(9).unwrap();
        let devices = [1, 2].map(|id| (DeviceId::new(id).unwrap(), registration));
        let to: Address = "ada@birdy.example".parse().unwrap();
        let mut template = Template::new(&to, &devices, 344).unwrap();
        for byte in [3, 4] {
            let record = template.with([byte; 16]).to_vec();
            let Ok(FromClient::Message(submit)) = decode_client(Encoding::Binary, &record) else {
                panic!("no message")
            };
            assert_eq!(submit.id.as_bytes(), &[byte; 16]);
            assert_eq!((submit.enc.len(), submit.enc[1].ciphertext.as_bytes().len()), (2, 344));
            assert_eq!(submit.to, to);
        }
        assert!(Template::new(&to, &devices, 0).is_err());
    }
}
