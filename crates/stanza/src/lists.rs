//! The protocol's closed lists. A value has one name, which XML, logs and metrics share, and one number.
//!
//! To add a value: add it to the enum in `proto/causeway/wire/v1/stanza.proto`, and here. A test compares the two.

use causeway_proto::wire::v1 as pb;

use crate::error::Problem;

macro_rules! closed_list {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $value_doc:literal])+ $value:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $value_doc])+ $value,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Names and numbers, for the XML codec.
            pub(crate) const NAMES: &'static [(&'static str, i32)] = &[$(($text, pb::$name::$value as i32)),+];

            /// The name, as it stands in XML; stable, so that it may be a log field or a metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl TryFrom<pb::$name> for $name {
            type Error = Problem;

            fn try_from(value: pb::$name) -> Result<Self, Problem> {
                match value {
                    $(pb::$name::$value => Ok(Self::$value),)+
                    pb::$name::Unspecified => Err(Problem::Missing),
                }
            }
        }

        /// From the number of a generated field; a number outside the list is refused, never replaced by a default.
        impl TryFrom<i32> for $name {
            type Error = Problem;

            fn try_from(number: i32) -> Result<Self, Problem> {
                pb::$name::try_from(number).map_err(|_| Problem::UnknownValue)?.try_into()
            }
        }

        impl From<$name> for pb::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$value => Self::$value),+ }
            }
        }

        impl From<$name> for i32 {
            fn from(value: $name) -> Self {
                pb::$name::from(value).into()
            }
        }

        impl std::str::FromStr for $name {
            type Err = Problem;

            fn from_str(name: &str) -> Result<Self, Problem> {
                Self::ALL.iter().copied().find(|value| value.as_str() == name).ok_or(Problem::UnknownValue)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

closed_list! {
    /// How stanzas are written in a session.
    Encoding {
        /// Protobuf.
        Binary = "binary",
        /// XML in the namespace `urn:causeway:1`.
        Xml = "xml",
    }
}

closed_list! {
    /// Why a login failed. A failure names no more than this.
    FailureReason {
        /// Not a token of the accepted form.
        TokenMalformed = "token-malformed",
        /// No registered key of the issuer made this signature.
        TokenSignature = "token-signature",
        /// Past its `exp`.
        TokenExpired = "token-expired",
        /// Before its `iat` or `nbf`.
        TokenNotYetValid = "token-not-yet-valid",
        /// Made for another deployment.
        TokenAudience = "token-audience",
        /// No provider has this issuer, or the address does not fit it.
        TokenIssuer = "token-issuer",
        /// `cnf` does not name the Noise key of this connection.
        TokenBinding = "token-binding",
        /// The `jti` was used with another Noise key.
        TokenReplayed = "token-replayed",
        /// The provider is suspended.
        ProviderSuspended = "provider-suspended",
        /// The provider is not registered here.
        ProviderUnknown = "provider-unknown",
        /// The account has no such device.
        DeviceUnknown = "device-unknown",
        /// The device was enlisted with another Noise key.
        DeviceKey = "device-key",
        /// The proxy is not registered, or not allowed.
        ProxyRefused = "proxy-refused",
        /// The client's hello is not of this version.
        Version = "version",
        /// No room now; come back later.
        Overloaded = "overloaded",
    }
}

closed_list! {
    /// What kind of handling a message asks for.
    MessageClass {
        /// Kept until delivered, at most 30 days.
        Chat = "chat",
        /// Delivered now or dropped.
        Ephemeral = "ephemeral",
        /// Delivered now, kept for 60 s.
        Call = "call",
    }
}

closed_list! {
    /// What a ciphertext is to the end-to-end protocol. The server never looks inside.
    EncType {
        /// Signal message that also sets up a session.
        Prekey = "prekey",
        /// Signal message in an established session.
        Whisper = "whisper",
        /// Signal group message.
        SenderKey = "sender-key",
        /// A retry request, which carries no content.
        Plaintext = "plaintext",
    }
}

closed_list! {
    /// Whose provider somebody is with.
    ProviderKind {
        /// The operator's own messenger.
        Home = "home",
        /// Any other.
        ThirdParty = "third-party",
    }
}

closed_list! {
    /// Where a client should show a conversation.
    Inbox {
        /// Among the user's own.
        Main = "main",
        /// In the inbox for third parties.
        ThirdParty = "third-party",
        /// Among requests of strangers.
        Requests = "requests",
    }
}

closed_list! {
    /// What became of a message.
    Status {
        /// Every addressed device has acknowledged.
        Delivered = "delivered",
        /// Durable in at least one mailbox, delivered for the rest.
        Stored = "stored",
        /// Ephemeral, and not everybody was there.
        Dropped = "dropped",
        /// Nothing was delivered or stored.
        Rejected = "rejected",
    }
}

closed_list! {
    /// Why a message was rejected.
    Rejection {
        /// The device list differs from the directory's.
        Devices = "devices",
        /// Unknown, not enlisted, not opted in, blocked, or a closed route: one answer for all.
        NotAvailable = "not-available",
        /// Too many.
        RateLimited = "rate-limited",
        /// Larger than the recipient takes.
        TooLarge = "too-large",
        /// The allowance of a message request is used up.
        RequestPending = "request-pending",
    }
}

closed_list! {
    /// Why a session ends.
    EndReason {
        /// The client leaves by itself.
        Bye = "bye",
        /// A newer session of the same device took over.
        Replaced = "replaced",
        /// A record was too large or not a stanza.
        BadStanza = "bad-stanza",
        /// An ack of a tag that was not sent.
        BadAck = "bad-ack",
        /// The server is going away.
        Draining = "draining",
        /// The token expired and was not refreshed.
        TokenExpired = "token-expired",
        /// This device was removed.
        DeviceRemoved = "device-removed",
        /// The account left the network.
        Withdrawn = "withdrawn",
        /// The provider was suspended.
        ProviderSuspended = "provider-suspended",
        /// Nothing heard for too long.
        Timeout = "timeout",
        /// More in one session than its bounds allow.
        RateLimited = "rate-limited",
        /// The server cannot serve this session now.
        Overloaded = "overloaded",
    }
}

closed_list! {
    /// Why a request was not carried out.
    ErrorCode {
        /// Well-formed, but a field is not acceptable.
        BadRequest = "bad-request",
        /// A key or a signature of the batch is not acceptable; nothing of it was stored.
        BadKeys = "bad-keys",
        /// Unknown, not enlisted, not opted in, blocked or closed: one answer for all.
        NotAvailable = "not-available",
        /// Too many; `retry-after` says when to come back.
        RateLimited = "rate-limited",
        /// Larger than this deployment takes.
        TooLarge = "too-large",
        /// The account has as many devices as it may have.
        DeviceLimit = "device-limit",
        /// This session must enlist first.
        NotEnlisted = "not-enlisted",
        /// This session or its Noise key is enlisted already, with other keys.
        AlreadyEnlisted = "already-enlisted",
        /// The fresh token was refused; the detail is the failure reason's name.
        TokenRefused = "token-refused",
        /// This deployment does not serve the request.
        Unsupported = "unsupported",
        /// A part of the server is away; `retry-after` says when to come back.
        Unavailable = "unavailable",
    }
}

closed_list! {
    /// How conversations with other providers' users are shown.
    InboxSetting {
        /// In an inbox of their own.
        Separate = "separate",
        /// Among all others.
        Combined = "combined",
    }
}

closed_list! {
    /// Who may reach a user.
    Reach {
        /// Everyone whom the provider rules allow.
        Everyone = "everyone",
        /// Accepted contacts.
        Contacts = "contacts",
        /// Nobody.
        Nobody = "nobody",
    }
}

closed_list! {
    /// What to do about a contact.
    ContactAction {
        /// Accept a request.
        Accept = "accept",
        /// Decline a request.
        Decline = "decline",
        /// Block.
        Block = "block",
        /// Unblock.
        Unblock = "unblock",
        /// List all.
        List = "list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_protos_name_in_lower_case() {
        for reason in FailureReason::ALL {
            let name = pb::FailureReason::from(*reason).as_str_name();
            let expected = name.trim_start_matches("FAILURE_REASON_").to_lowercase().replace('_', "-");
            assert_eq!(reason.as_str(), expected);
            assert_eq!(expected.parse(), Ok(*reason));
        }
        for code in ErrorCode::ALL {
            let name = pb::ErrorCode::from(*code).as_str_name();
            assert_eq!(code.as_str(), name.trim_start_matches("ERROR_CODE_").to_lowercase().replace('_', "-"));
        }
        for reason in EndReason::ALL {
            let name = pb::EndReason::from(*reason).as_str_name();
            assert_eq!(reason.as_str(), name.trim_start_matches("END_REASON_").to_lowercase().replace('_', "-"));
        }
    }

    #[test]
    fn a_number_outside_the_list_is_refused() {
        assert_eq!(MessageClass::try_from(99), Err(Problem::UnknownValue));
        assert_eq!(MessageClass::try_from(-1), Err(Problem::UnknownValue));
        assert_eq!(MessageClass::try_from(0), Err(Problem::Missing));
        assert_eq!(MessageClass::try_from(3), Ok(MessageClass::Call));
    }
}
