//! How a change is written in the log that several key-directories share: JSON, so that whoever looks into the database
//! can read it. A replica of another version may have written it: what cannot be read is no error here, the reader then
//! makes its followers forget everything.

use causeway_identity::{AccountId, DeviceId};
use serde::{Deserialize, Serialize};

use super::{Change, What};
use crate::store::KeyCounts;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
enum Stored {
    Record {
        address: String,
        /// 32 hex digits.
        account: String,
        #[serde(flatten)]
        what: StoredWhat,
    },
    Provider {
        domain: String,
    },
    TokenKeys {
        domain: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
enum StoredWhat {
    Devices,
    Consent,
    Withdrawn,
    PrekeysLow { device: u32, ec: u32, kyber: u32 },
    Push,
}

/// For the log.
pub(crate) fn encode(change: &Change) -> String {
    let stored = match change {
        Change::Record { address, account, what } => Stored::Record {
            address: address.to_string(),
            account: account.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
            what: match what {
                What::Devices => StoredWhat::Devices,
                What::Consent => StoredWhat::Consent,
                What::Withdrawn => StoredWhat::Withdrawn,
                What::PrekeysLow { device, left } => {
                    StoredWhat::PrekeysLow { device: device.get(), ec: left.ec, kyber: left.kyber }
                }
                What::Push => StoredWhat::Push,
            },
        },
        Change::Provider { domain } => Stored::Provider { domain: domain.to_string() },
        Change::TokenKeys { domain } => Stored::TokenKeys { domain: domain.to_string() },
    };
    serde_json::to_string(&stored).expect("texts and numbers only")
}

/// What `encode` wrote; `None`: something else.
pub(crate) fn decode(text: &str) -> Option<Change> {
    Some(match serde_json::from_str(text).ok()? {
        Stored::Record { address, account, what } => Change::Record {
            address: address.parse().ok()?,
            account: account_id(&account)?,
            what: match what {
                StoredWhat::Devices => What::Devices,
                StoredWhat::Consent => What::Consent,
                StoredWhat::Withdrawn => What::Withdrawn,
                StoredWhat::PrekeysLow { device, ec, kyber } => {
                    What::PrekeysLow { device: DeviceId::new(device).ok()?, left: KeyCounts { ec, kyber } }
                }
                StoredWhat::Push => What::Push,
            },
        },
        Stored::Provider { domain } => Change::Provider { domain: domain.parse().ok()? },
        Stored::TokenKeys { domain } => Change::TokenKeys { domain: domain.parse().ok()? },
    })
}

fn account_id(hex: &str) -> Option<AccountId> {
    let digits = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(hex, 16).ok().filter(|_| digits)?;
    Some(AccountId::from_bytes(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_go_in_and_come_out() {
        let account = AccountId::from_bytes([0x0f; 16]);
        let left = KeyCounts { ec: 3, kyber: 0 };
        let low = What::PrekeysLow { device: DeviceId::new(7).unwrap(), left };
        for what in [What::Devices, What::Consent, What::Withdrawn, What::Push, low] {
            let change = Change::Record { address: "ada@birdy.example".parse().unwrap(), account, what };
            assert_eq!(decode(&encode(&change)), Some(change));
        }
        let domain: causeway_identity::Domain = "birdy.example".parse().unwrap();
        for change in [Change::Provider { domain: domain.clone() }, Change::TokenKeys { domain }] {
            assert_eq!(decode(&encode(&change)), Some(change));
        }
    }

    #[test]
    fn what_is_written_stays_readable() {
        let written = r#"{"of":"record","address":"ada@birdy.example","account":"000102030405060708090a0b0c0d0e0f","what":"consent"}"#;
        let change = decode(written).expect("is a change");
        assert_eq!(encode(&change), written);
    }

    #[test]
    fn what_is_no_change_is_nothing() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"of":"weather"}"#,
            r#"{"of":"provider","domain":"Not A Domain"}"#,
            r#"{"of":"record","address":"ada@birdy.example","account":"0f","what":"consent"}"#,
            r#"{"of":"record","address":"ada@birdy.example","account":"+00102030405060708090a0b0c0d0e0f","what":"push"}"#,
            r#"{"of":"record","address":"ada@birdy.example","account":"000102030405060708090a0b0c0d0e0f","what":"dance"}"#,
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
