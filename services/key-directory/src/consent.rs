//! What a user allows.

use std::collections::BTreeMap;

use causeway_identity::Domain;
use causeway_proto::wire::v1 as wire;

/// Most provider rules of an account.
pub const MAX_RULES: usize = 256;

/// A user's settings; the default is what enlistment leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consent {
    /// Off: nobody reaches the user, and the user reaches nobody.
    pub interop: bool,
    /// Where third parties' messages are shown.
    pub inbox: InboxSetting,
    /// Who may write.
    pub reach: Reach,
    /// Providers for which the user decided; for all others the answer is yes.
    pub rules: BTreeMap<Domain, bool>,
}

/// Where third parties' messages are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum InboxSetting {
    /// In an inbox of their own.
    #[default]
    Separate,
    /// Among the home messages.
    Combined,
}

/// Who may write to a user. `contacts` of the wire is not served yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reach {
    /// Everyone whom the rules let through.
    #[default]
    Everyone,
    /// Nobody.
    Nobody,
}

/// Why settings were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadConsent {
    /// No settings at all.
    #[error("settings: is missing")]
    Missing,
    /// Unknown or unset.
    #[error("inbox: must be separate or combined")]
    Inbox,
    /// Unknown, unset, or `contacts`.
    #[error("reach: must be everyone or nobody")]
    Reach,
    /// Too many rules.
    #[error("providers: at most 256 rules are allowed")]
    TooManyRules,
    /// Not a domain.
    #[error("providers: must name lower-case domains in A-labels")]
    Domain,
    /// Two rules for one provider.
    #[error("providers: names a provider twice")]
    Repeated,
}

impl Consent {
    /// True unless the user denied this provider.
    pub fn allows(&self, provider: &Domain) -> bool {
        self.rules.get(provider).copied().unwrap_or(true)
    }

    /// For the wire.
    pub fn to_proto(&self) -> wire::ConsentSettings {
        let inbox = match self.inbox {
            InboxSetting::Separate => wire::InboxSetting::Separate,
            InboxSetting::Combined => wire::InboxSetting::Combined,
        };
        let reach = match self.reach {
            Reach::Everyone => wire::Reach::Everyone,
            Reach::Nobody => wire::Reach::Nobody,
        };
        let rule =
            |(provider, allow): (&Domain, &bool)| wire::ProviderRule { provider: provider.to_string(), allow: *allow };
        wire::ConsentSettings {
            interop: self.interop,
            providers: self.rules.iter().map(rule).collect(),
            inbox: inbox.into(),
            reach: reach.into(),
        }
    }
}

impl TryFrom<Option<wire::ConsentSettings>> for Consent {
    type Error = BadConsent;

    fn try_from(settings: Option<wire::ConsentSettings>) -> Result<Self, BadConsent> {
        let settings = settings.ok_or(BadConsent::Missing)?;
        let inbox = match settings.inbox() {
            wire::InboxSetting::Separate => InboxSetting::Separate,
            wire::InboxSetting::Combined => InboxSetting::Combined,
            wire::InboxSetting::Unspecified => return Err(BadConsent::Inbox),
        };
        let reach = match settings.reach() {
            wire::Reach::Everyone => Reach::Everyone,
            wire::Reach::Nobody => Reach::Nobody,
            wire::Reach::Contacts | wire::Reach::Unspecified => return Err(BadConsent::Reach),
        };
        if settings.providers.len() > MAX_RULES {
            return Err(BadConsent::TooManyRules);
        }
        let mut rules = BTreeMap::new();
        for rule in settings.providers {
            let domain: Domain = rule.provider.parse().map_err(|_| BadConsent::Domain)?;
            if rules.insert(domain, rule.allow).is_some() {
                return Err(BadConsent::Repeated);
            }
        }
        Ok(Self { interop: settings.interop, inbox, reach, rules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> wire::ConsentSettings {
        wire::ConsentSettings {
            interop: true,
            providers: vec![wire::ProviderRule { provider: "birdy.example".to_owned(), allow: false }],
            inbox: wire::InboxSetting::Combined.into(),
            reach: wire::Reach::Nobody.into(),
        }
    }

    fn refusal(change: impl FnOnce(&mut wire::ConsentSettings)) -> BadConsent {
        let mut settings = good();
        change(&mut settings);
        Consent::try_from(Some(settings)).expect_err("must be refused")
    }

    #[test]
    fn settings_go_in_and_come_out() {
        let consent = Consent::try_from(Some(good())).unwrap();
        assert_eq!(consent.to_proto(), good());
        assert!(!consent.allows(&"birdy.example".parse().unwrap()));
        assert!(consent.allows(&"other.example".parse().unwrap()));
    }

    #[test]
    fn nothing_is_taken_by_default() {
        assert_eq!(Consent::try_from(None), Err(BadConsent::Missing));
        assert_eq!(refusal(|s| s.inbox = 0), BadConsent::Inbox);
        assert_eq!(refusal(|s| s.inbox = 99), BadConsent::Inbox);
        assert_eq!(refusal(|s| s.reach = 0), BadConsent::Reach);
        assert_eq!(refusal(|s| s.reach = wire::Reach::Contacts.into()), BadConsent::Reach);
        assert_eq!(refusal(|s| s.providers[0].provider = "Birdy.example".to_owned()), BadConsent::Domain);
        assert_eq!(refusal(|s| s.providers.push(s.providers[0].clone())), BadConsent::Repeated);
        let many = (0..257).map(|n| wire::ProviderRule { provider: format!("p{n}.example"), allow: true }).collect();
        assert_eq!(refusal(|s| s.providers = many), BadConsent::TooManyRules);
    }
}
