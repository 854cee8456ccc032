//! A batch of prekeys becomes a [`VerifiedPrekeys`] as a whole or not at all; the error names the field at fault.

use std::collections::HashSet;

use causeway_proto::wire::v1 as wire;

use super::{EcPrekey, EcPublicKey, KeyError, KyberPublicKey, PrekeyId, RegistrationId, Signature, SignedPrekey};

/// At most this many one-time keys of each kind in a batch.
pub const MAX_BATCH: usize = 100;

/// Why a batch was refused. Prints as `field: problem`, below 200 bytes, for a developer's eyes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadKeys {
    field: String,
    problem: String,
}

impl BadKeys {
    pub(crate) fn new(field: impl Into<String>, problem: &(impl ToString + ?Sized)) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

/// Prekeys of one device, each well-formed and, where Signal signs it, signed by `identity_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPrekeys {
    /// The key that signed.
    pub identity_key: EcPublicKey,
    /// The signed EC prekey; `None` leaves the stored one.
    pub signed: Option<SignedPrekey<EcPublicKey>>,
    /// The Kyber prekey for when one-time ones are used up; `None` leaves the stored one.
    pub last_resort: Option<SignedPrekey<KyberPublicKey>>,
    /// One-time EC prekeys in the order in which they are to be handed out.
    pub ec: Vec<EcPrekey>,
    /// One-time Kyber prekeys in the order in which they are to be handed out.
    pub kyber: Vec<SignedPrekey<KyberPublicKey>>,
}

/// Checks the keys of an enlistment: the signed and the last-resort prekey are required.
///
/// # Errors
/// [`BadKeys`] for the first field at fault.
pub fn verify_enlistment(enlist: &wire::Enlist) -> Result<(RegistrationId, VerifiedPrekeys), BadKeys> {
    let registration_id = RegistrationId::try_from(enlist.registration_id).map_err(at("registration_id"))?;
    let signed = enlist.signed_prekey.as_ref().ok_or_else(|| BadKeys::new("signed_prekey", "is missing"))?;
    let last_resort =
        enlist.last_resort_kyber.as_ref().ok_or_else(|| BadKeys::new("last_resort_kyber", "is missing"))?;
    let keys =
        verify(&enlist.identity_key, Some(signed), Some(last_resort), &enlist.ec_prekeys, &enlist.kyber_prekeys)?;
    Ok((registration_id, keys))
}

/// Checks the keys of a publication; a part that is absent stays as it is.
///
/// # Errors
/// [`BadKeys`] for the first field at fault.
pub fn verify_publication(publish: &wire::KeysPublish) -> Result<VerifiedPrekeys, BadKeys> {
    verify(
        &publish.identity_key,
        publish.signed_prekey.as_ref(),
        publish.last_resort_kyber.as_ref(),
        &publish.ec_prekeys,
        &publish.kyber_prekeys,
    )
}

fn verify(
    identity: &[u8],
    signed: Option<&wire::SignedPrekey>,
    last_resort: Option<&wire::SignedPrekey>,
    ec: &[wire::EcPrekey],
    kyber: &[wire::SignedPrekey],
) -> Result<VerifiedPrekeys, BadKeys> {
    for (field, count) in [("ec_prekeys", ec.len()), ("kyber_prekeys", kyber.len())] {
        if count > MAX_BATCH {
            return Err(BadKeys::new(field, &format!("has {count} keys, at most {MAX_BATCH} are allowed")));
        }
    }
    let identity_key = EcPublicKey::parse(identity).map_err(at("identity_key"))?;
    let signed = signed.map(|prekey| signed_ec(&identity_key, prekey)).transpose()?;
    let last_resort = last_resort.map(|prekey| signed_kyber(&identity_key, prekey, "last_resort_kyber")).transpose()?;

    let mut ec_keys = Vec::with_capacity(ec.len());
    let mut seen = Seen::default();
    for (n, prekey) in ec.iter().enumerate() {
        let field = format!("ec_prekeys[{n}]");
        let id = PrekeyId::try_from(prekey.id).map_err(at(&format!("{field}.id")))?;
        let key = EcPublicKey::parse(&prekey.public_key).map_err(at(&format!("{field}.public_key")))?;
        seen.add(id, key.as_bytes(), &field)?;
        ec_keys.push(EcPrekey { id, key });
    }

    let mut kyber_keys = Vec::with_capacity(kyber.len());
    let mut seen = Seen::default();
    if let Some(last) = &last_resort {
        // Devices keep both kinds of Kyber key under one numbering.
        seen.add(last.id, last.key.as_bytes(), "last_resort_kyber")?;
    }
    for (n, prekey) in kyber.iter().enumerate() {
        let field = format!("kyber_prekeys[{n}]");
        let key = signed_kyber(&identity_key, prekey, &field)?;
        seen.add(key.id, key.key.as_bytes(), &field)?;
        kyber_keys.push(key);
    }
    Ok(VerifiedPrekeys { identity_key, signed, last_resort, ec: ec_keys, kyber: kyber_keys })
}

fn signed_ec(identity: &EcPublicKey, prekey: &wire::SignedPrekey) -> Result<SignedPrekey<EcPublicKey>, BadKeys> {
    let id = PrekeyId::try_from(prekey.id).map_err(at("signed_prekey.id"))?;
    let key = EcPublicKey::parse(&prekey.public_key).map_err(at("signed_prekey.public_key"))?;
    let signature = checked_signature(identity, &prekey.public_key, &prekey.signature, "signed_prekey")?;
    Ok(SignedPrekey { id, key, signature })
}

fn signed_kyber(
    identity: &EcPublicKey,
    prekey: &wire::SignedPrekey,
    field: &str,
) -> Result<SignedPrekey<KyberPublicKey>, BadKeys> {
    let id = PrekeyId::try_from(prekey.id).map_err(at(&format!("{field}.id")))?;
    let key = KyberPublicKey::parse(&prekey.public_key).map_err(at(&format!("{field}.public_key")))?;
    let signature = checked_signature(identity, &prekey.public_key, &prekey.signature, field)?;
    Ok(SignedPrekey { id, key, signature })
}

fn checked_signature(identity: &EcPublicKey, key: &[u8], signature: &[u8], field: &str) -> Result<Signature, BadKeys> {
    let name = format!("{field}.signature");
    let signature = Signature::try_from(signature).map_err(at(&name))?;
    if !identity.verifies(key, &signature) {
        return Err(BadKeys::new(name, "does not verify under the identity key"));
    }
    Ok(signature)
}

fn at(field: &str) -> impl FnOnce(KeyError) -> BadKeys {
    let field = field.to_owned();
    move |error| BadKeys::new(field, &error)
}

/// Ids and keys of a batch so far; each may come once.
#[derive(Default)]
struct Seen {
    ids: HashSet<PrekeyId>,
    keys: HashSet<Vec<u8>>,
}

impl Seen {
    fn add(&mut self, id: PrekeyId, key: &[u8], field: &str) -> Result<(), BadKeys> {
        if !self.ids.insert(id) {
            return Err(BadKeys::new(format!("{field}.id"), "is used twice in the batch"));
        }
        if !self.keys.insert(key.to_vec()) {
            return Err(BadKeys::new(format!("{field}.public_key"), "is used twice in the batch"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Phone;

    fn field_at_fault(enlist: &wire::Enlist) -> String {
        verify_enlistment(enlist).expect_err("must be refused").field
    }

    #[test]
    fn a_hundred_keys_of_each_kind_are_accepted_and_one_more_is_not() {
        let phone = Phone::new();
        let mut enlist = phone.enlist(100, 100);
        let (_, keys) = verify_enlistment(&enlist).unwrap();
        assert_eq!((keys.ec.len(), keys.kyber.len()), (100, 100));
        enlist.ec_prekeys.push(phone.ec_prekey(101));
        assert_eq!(field_at_fault(&enlist), "ec_prekeys");
    }

    #[test]
    fn each_signature_is_verified() {
        let (phone, other) = (Phone::new(), Phone::new());
        let good = phone.enlist(0, 2);
        assert!(verify_enlistment(&good).is_ok());

        let mut wrong = good.clone();
        wrong.signed_prekey = Some(other.signed_prekey(1));
        assert_eq!(field_at_fault(&wrong), "signed_prekey.signature", "signature of another device");
        let mut wrong = good.clone();
        wrong.last_resort_kyber = Some(other.kyber_prekey(1));
        assert_eq!(field_at_fault(&wrong), "last_resort_kyber.signature");
        let mut wrong = good.clone();
        wrong.kyber_prekeys[1] = other.kyber_prekey(11);
        assert_eq!(field_at_fault(&wrong), "kyber_prekeys[1].signature");
        let mut wrong = good.clone();
        wrong.signed_prekey = Some(phone.signed_without_type_byte(1));
        assert_eq!(field_at_fault(&wrong), "signed_prekey.signature", "over the key without its type byte");
        let mut wrong = good;
        wrong.kyber_prekeys[0].signature = wrong.kyber_prekeys[0].signature.slice(..63);
        assert_eq!(field_at_fault(&wrong), "kyber_prekeys[0].signature");
    }

    #[test]
    fn ids_and_keys_come_once_and_in_range() {
        let phone = Phone::new();
        let good = phone.enlist(2, 2);
        let mut wrong = good.clone();
        wrong.ec_prekeys[1].id = wrong.ec_prekeys[0].id;
        assert_eq!(field_at_fault(&wrong), "ec_prekeys[1].id");
        let mut wrong = good.clone();
        wrong.ec_prekeys[1].public_key = wrong.ec_prekeys[0].public_key.clone();
        assert_eq!(field_at_fault(&wrong), "ec_prekeys[1].public_key");
        let mut wrong = good.clone();
        wrong.kyber_prekeys[1].id = wrong.last_resort_kyber.as_ref().unwrap().id;
        assert_eq!(field_at_fault(&wrong), "kyber_prekeys[1].id", "one numbering with the last-resort key");
        for id in [0, 1 << 24] {
            let mut wrong = good.clone();
            wrong.ec_prekeys[0].id = id;
            assert_eq!(field_at_fault(&wrong), "ec_prekeys[0].id");
        }
        let mut wrong = good.clone();
        wrong.registration_id = 16_381;
        assert_eq!(field_at_fault(&wrong), "registration_id");
        let mut wrong = good;
        wrong.signed_prekey = None;
        assert_eq!(field_at_fault(&wrong), "signed_prekey");
    }

    #[test]
    fn malformed_keys_are_named() {
        let good = Phone::new().enlist(2, 2);
        let mut wrong = good.clone();
        wrong.identity_key = wrong.identity_key.slice(1..);
        assert_eq!(field_at_fault(&wrong), "identity_key");
        let mut wrong = good.clone();
        wrong.ec_prekeys[1].public_key = [&[0x05][..], &crate::testing::low_order_points()[2]].concat().into();
        assert_eq!(field_at_fault(&wrong), "ec_prekeys[1].public_key");
        let mut wrong = good;
        let key = wrong.kyber_prekeys[0].public_key.slice(..1568);
        wrong.kyber_prekeys[0].public_key = key;
        assert_eq!(field_at_fault(&wrong), "kyber_prekeys[0].public_key");
    }
}
