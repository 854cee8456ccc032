//! Addresses of users and devices, and the domains of providers.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::ids::DeviceId;

/// Longest local part in bytes after normalisation.
const MAX_LOCAL_BYTES: usize = 128;
/// Longest domain in bytes (RFC 1035).
const MAX_DOMAIN_BYTES: usize = 253;

/// Why text is not an address. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`, or more than one.
    #[error("an address has the form local@provider")]
    Form,
    /// The local part is empty or longer than 128 bytes.
    #[error("the local part must be 1 to 128 bytes")]
    LocalLength,
    /// The local part holds `@`, `/`, a control, format or bidirectional character, or white space at an end.
    #[error("the local part has a character that is not allowed")]
    LocalCharacter,
    /// The provider is not a lower-case registered domain in A-labels.
    #[error("the provider must be a lower-case domain name in A-labels")]
    Domain,
    /// The device part is missing or not a device id.
    #[error("a device address has the form local@provider/device")]
    Device,
}

/// The registered domain of a provider: lower-case, IDNA A-labels, at least two labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

impl Domain {
    /// True for text that parses, without making a domain of it.
    pub fn is_valid(text: &str) -> bool {
        is_domain(text)
    }

    /// The domain as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    /// Accepts canonical spelling only; nothing is folded or mapped, so that one provider has one name.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if is_domain(text) { Ok(Self(text.to_owned())) } else { Err(AddressError::Domain) }
    }
}

fn is_domain(text: &str) -> bool {
    let mut labels = 0;
    let labels_are_shaped = text.len() <= MAX_DOMAIN_BYTES
        && text.split('.').all(|label| {
            labels += 1;
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    if !labels_are_shaped || labels < 2 || text.rsplit('.').next().is_some_and(is_number) {
        return false;
    }
    // Only two hyphens in a row can mark a label that stands for another one.
    !text.contains("--") || idna::domain_to_ascii_strict(text).is_ok_and(|ascii| ascii == text)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account address, `local@provider`. Compared byte for byte; the local part is kept in NFC.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// The address of `local` at `provider`; `local` is normalised to NFC.
    ///
    /// # Errors
    /// [`AddressError::LocalLength`] and [`AddressError::LocalCharacter`].
    pub fn new(local: &str, provider: &Domain) -> Result<Self, AddressError> {
        let local = local_part(local)?;
        let mut text = String::with_capacity(local.len() + 1 + provider.0.len());
        text.push_str(&local);
        text.push('@');
        text.push_str(provider.as_str());
        Ok(Self { text, at: local.len() })
    }

    /// True for text that parses and then prints as it was.
    pub fn is_canonical(text: &str) -> bool {
        matches!(split(text), Ok((Cow::Borrowed(_), _)))
    }

    /// `local@provider`, for the wire and for people, never for logs.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same, to be sent on without a copy.
    pub fn into_string(self) -> String {
        self.text
    }

    /// The part before the `@`.
    pub fn local(&self) -> &str {
        &self.text[..self.at]
    }

    /// The provider's domain as text.
    pub fn provider(&self) -> &str {
        &self.text[self.at + 1..]
    }
}

/// The local part in NFC.
fn local_part(local: &str) -> Result<Cow<'_, str>, AddressError> {
    // Bounded before normalisation: NFC shrinks a text at most threefold.
    if local.is_empty() || local.len() > 3 * MAX_LOCAL_BYTES {
        return Err(AddressError::LocalLength);
    }
    // ASCII is in NFC.
    let ascii = local.is_ascii();
    let text = if ascii || is_nfc(local) { Cow::Borrowed(local) } else { Cow::Owned(local.nfc().collect()) };
    if text.len() > MAX_LOCAL_BYTES {
        return Err(AddressError::LocalLength);
    }
    let edges = [text.chars().next(), text.chars().next_back()];
    let refused = edges.iter().flatten().any(|c| c.is_whitespace())
        || if ascii {
            text.bytes().any(|b| matches!(b, b'@' | b'/') || b.is_ascii_control())
        } else {
            text.chars().any(forbidden)
        };
    if refused { Err(AddressError::LocalCharacter) } else { Ok(text) }
}

/// Characters that could hide, forge or split an address: separators, controls, and the invisible and bidirectional
/// format characters of Unicode (UTS #39 names them as confusing in identifiers).
fn forbidden(c: char) -> bool {
    matches!(c, '@' | '/')
        || c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{FFFE}' | '\u{FFFF}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses the canonical spelling: a local part that is not in NFC is normalised, all else is refused.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, provider) = split(text)?;
        let text = format!("{local}@{provider}");
        Ok(Self { text, at: local.len() })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    /// As [`Address::from_str`], in the memory of the text.
    fn try_from(text: String) -> Result<Self, AddressError> {
        match split(&text)? {
            (Cow::Borrowed(local), _) => {
                let at = local.len();
                Ok(Self { text, at })
            }
            (Cow::Owned(local), provider) => Ok(Self { text: format!("{local}@{provider}"), at: local.len() }),
        }
    }
}

fn split(text: &str) -> Result<(Cow<'_, str>, &str), AddressError> {
    if text.len() > 3 * MAX_LOCAL_BYTES + 1 + MAX_DOMAIN_BYTES {
        return Err(AddressError::LocalLength);
    }
    let (local, provider) = text.rsplit_once('@').ok_or(AddressError::Form)?;
    if !is_domain(provider) {
        return Err(AddressError::Domain);
    }
    Ok((local_part(local)?, provider))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Hides the address, so that it cannot reach a log by way of a derived `Debug`.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<address>")
    }
}

/// A device of an account, `local@provider/7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceAddress {
    /// The account.
    pub account: Address,
    /// The device of it.
    pub device: DeviceId,
}

impl DeviceAddress {
    /// True for text that parses and then prints as it was.
    pub fn is_canonical(text: &str) -> bool {
        text.rsplit_once('/')
            .is_some_and(|(account, device)| Address::is_canonical(account) && device.parse::<DeviceId>().is_ok())
    }
}

impl FromStr for DeviceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (account, device) = text.rsplit_once('/').ok_or(AddressError::Device)?;
        Ok(Self { account: account.parse()?, device: device.parse().map_err(|_| AddressError::Device)? })
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.device)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_has_a_local_part_and_a_provider() {
        let address: Address = "ada@birdy.example".parse().unwrap();
        assert_eq!((address.local(), address.provider()), ("ada", "birdy.example"));
        assert_eq!(format!("{address:?}"), "<address>");
        let device: DeviceAddress = "ada@birdy.example/7".parse().unwrap();
        assert_eq!(device.to_string(), "ada@birdy.example/7");
    }

    #[test]
    fn composed_and_decomposed_names_are_one_account() {
        let composed: Address = "jos\u{e9}@birdy.example".parse().unwrap();
        let decomposed: Address = "jose\u{301}@birdy.example".parse().unwrap();
        assert_eq!(composed, decomposed);
    }

    #[test]
    fn forged_and_broken_addresses_are_refused() {
        for (text, error) in [
            ("ada", AddressError::Form),
            ("@birdy.example", AddressError::LocalLength),
            ("a@b@birdy.example", AddressError::LocalCharacter),
            ("a/1@birdy.example", AddressError::LocalCharacter),
            (" ada@birdy.example", AddressError::LocalCharacter),
            ("ada\u{202e}@birdy.example", AddressError::LocalCharacter),
            ("ada\u{200b}@birdy.example", AddressError::LocalCharacter),
            ("ada@Birdy.example", AddressError::Domain),
            ("ada@birdy.example.", AddressError::Domain),
            ("ada@birdy", AddressError::Domain),
            ("ada@127.0.0.1", AddressError::Domain),
            ("ada@-x.example", AddressError::Domain),
            ("ada@xn--a.example", AddressError::Domain),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
        assert_eq!(format!("{}@birdy.example", "a".repeat(129)).parse::<Address>(), Err(AddressError::LocalLength));
        assert!(format!("{}@birdy.example", "a".repeat(128)).parse::<Address>().is_ok());
        for text in ["ada@birdy.example", "ada@birdy.example/", "ada@birdy.example/0", "ada@birdy.example/x"] {
            assert_eq!(text.parse::<DeviceAddress>(), Err(AddressError::Device), "{text}");
        }
    }

    /// What the parser's short ways leave out does not matter.
    fn by_the_long_way(text: &str) -> Result<String, AddressError> {
        let (local, provider) = text.rsplit_once('@').ok_or(AddressError::Form)?;
        let shaped = provider.len() <= MAX_DOMAIN_BYTES
            && provider.contains('.')
            && provider.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
            && provider
                .split('.')
                .all(|label| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-'))
            && !provider.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
        if !shaped || idna::domain_to_ascii_strict(provider).ok().as_deref() != Some(provider) {
            return Err(AddressError::Domain);
        }
        let local: String = local.nfc().collect();
        if local.is_empty() || local.len() > MAX_LOCAL_BYTES {
            return Err(AddressError::LocalLength);
        }
        let edges = [local.chars().next(), local.chars().next_back()];
        if edges.iter().flatten().any(|c| c.is_whitespace()) || local.chars().any(forbidden) {
            return Err(AddressError::LocalCharacter);
        }
        Ok(format!("{local}@{provider}"))
    }

    proptest! {
        #[test]
        fn short_ways_lead_to_the_same(
            text in prop_oneof![
                "[ -~\t]{0,6}@[a-zA-Z0-9.-]{0,12}",
                "[ -~]{1,4}@([a-z0-9-]{1,5}\\.){1,3}[a-z0-9-]{1,4}",
                "\\PC{0,6}@(xn--[a-z0-9-]{1,8}\\.){1,2}(example|xn--p1ai)",
                "(e\u{301}|a|\u{200b}){0,70}@birdy\\.example",
            ],
        ) {
            let expected = by_the_long_way(&text);
            prop_assert_eq!(&text.parse::<Address>().map(Address::into_string), &expected);
            prop_assert_eq!(Address::is_canonical(&text), expected.as_ref() == Ok(&text));
            prop_assert_eq!(DeviceAddress::is_canonical(&format!("{text}/7")), Address::is_canonical(&text));
            let zero_first = format!("{text}/07");
            prop_assert!(!DeviceAddress::is_canonical(&zero_first));
            let address = Address::try_from(text);
            prop_assert_eq!(address.clone().map(Address::into_string), expected);
            if let Ok(address) = address {
                prop_assert_eq!(format!("{}@{}", address.local(), address.provider()), address.as_str());
            }
        }

        #[test]
        fn what_parses_prints_and_parses_again(text in "\\PC{0,40}@[a-z.-]{1,20}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
