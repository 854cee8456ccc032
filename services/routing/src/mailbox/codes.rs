//! Closed lists as small integers in a database: the position in the list, from 1. Append only.

use crate::message::{Class, EncType, Inbox, Kind};

pub(super) const CLASSES: [Class; 3] = [Class::Chat, Class::Ephemeral, Class::Call];
pub(super) const KINDS: [Kind; 2] = [Kind::Home, Kind::ThirdParty];
pub(super) const INBOXES: [Inbox; 2] = [Inbox::Main, Inbox::ThirdParty];
pub(super) const ENC_TYPES: [EncType; 4] = [EncType::Prekey, EncType::Whisper, EncType::SenderKey, EncType::Plaintext];

/// The integer of a value of the list.
pub(super) fn code<T: PartialEq>(list: &[T], value: &T) -> i16 {
    list.iter().zip(1..).find(|(known, _)| *known == value).map_or(0, |(_, code)| code)
}

/// The value of the list; `None` if it has none of this integer.
pub(super) fn decode<T: Copy>(list: &[T], code: i64) -> Option<T> {
    let position = usize::try_from(code).ok()?.checked_sub(1)?;
    list.get(position).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_integer() {
        for class in CLASSES {
            assert_eq!(decode(&CLASSES, code(&CLASSES, &class).into()), Some(class));
        }
        assert_eq!((code(&CLASSES, &Class::Chat), code(&ENC_TYPES, &EncType::Plaintext)), (1, 4));
        assert_eq!([-1, 0, 4, i64::MAX].map(|code| decode(&CLASSES, code)), [None; 4]);
    }
}
