//! Which role may make which call: the one list. What is not in it, nobody may call.
//!
//! A new call of a `.proto` file needs a line here, or it is refused wherever services speak over TLS; a test compares the
//! two.

use super::Role::{self, Edge, KeyDirectory, OperatorTool, ProviderGateway, Routing};

/// A gRPC service, its methods, and who calls them.
type Calls = (&'static str, &'static [&'static str], &'static [Role]);

const CALLS: &[Calls] = &[
    ("causeway.directory.v1.Providers", &["Register", "Update", "List", "SetStatus"], &[OperatorTool]),
    ("causeway.directory.v1.Traces", &["Find"], &[OperatorTool, ProviderGateway]),
    ("causeway.directory.v1.TokenKeys", &["Watch", "Refetch"], &[Edge]),
    (
        "causeway.directory.v1.Accounts",
        &["Login", "Enlist", "Devices", "RemoveDevice", "Withdraw", "Discover", "SetPush"],
        &[Edge],
    ),
    ("causeway.directory.v1.Prekeys", &["Publish", "Count", "Claim"], &[Edge]),
    ("causeway.directory.v1.Consent", &["Get", "Set"], &[Edge]),
    ("causeway.directory.v1.Records", &["Get", "Follow", "Webhook"], &[Routing]),
    ("causeway.media.v1.Tickets", &["Upload", "Download"], &[Edge]),
    ("causeway.routing.v1.Routing", &["Link"], &[Edge]),
    ("causeway.routing.v1.Peers", &["Release"], &[Routing]),
    ("causeway.routing.v1.Traces", &["Find"], &[KeyDirectory]),
];

/// Whether a process of this role may make the call with this path, `/<package>.<service>/<method>`.
pub(crate) fn allows(role: Role, path: &str) -> bool {
    path.strip_prefix('/').and_then(who_calls).is_some_and(|roles| roles.contains(&role))
}

/// Whether there is a call with this full name, `<package>.<service>/<method>`.
pub(crate) fn is_call(name: &str) -> bool {
    who_calls(name).is_some()
}

fn who_calls(name: &str) -> Option<&'static [Role]> {
    let (service, method) = name.split_once('/')?;
    let (_, _, roles) = CALLS.iter().find(|(known, methods, _)| *known == service && methods.contains(&method))?;
    Some(roles)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::Role::MediaRelay;
    use super::*;

    /// `/<package>.<service>/<method>` of each call in the `.proto` files below a folder.
    fn calls_below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                calls_below(&path, found);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "proto") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
            let code = code.join(" ").replace(['{', '(', ';'], " ");
            let mut words = code.split_whitespace();
            let (mut package, mut service) = (String::new(), String::new());
            while let Some(word) = words.next() {
                match word {
                    "package" => words.next().unwrap().clone_into(&mut package),
                    "service" => words.next().unwrap().clone_into(&mut service),
                    "rpc" => {
                        found.insert(format!("/{package}.{service}/{}", words.next().unwrap()));
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn every_call_of_the_proto_files_is_in_the_list_and_no_other() {
        let mut declared = BTreeSet::new();
        calls_below(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/causeway")), &mut declared);
        assert!(declared.contains("/causeway.routing.v1.Peers/Release"), "{declared:?}");
        let listed: BTreeSet<String> = CALLS
            .iter()
            .flat_map(|(service, methods, _)| methods.iter().map(move |method| format!("/{service}/{method}")))
            .collect();
        assert!(declared.iter().all(|path| is_call(path.trim_start_matches('/'))));
        assert!(!is_call("causeway.routing.v1.Peers/Nothing") && !is_call("/causeway.routing.v1.Peers/Release"));
        let (missing, gone): (Vec<_>, Vec<_>) =
            (declared.difference(&listed).collect(), listed.difference(&declared).collect());
        assert!(missing.is_empty(), "say in permissions.rs who may call {missing:?}");
        assert!(gone.is_empty(), "permissions.rs lists calls that there are not: {gone:?}");
        for (service, _, roles) in CALLS {
            assert!(!roles.is_empty(), "nobody may call {service}");
        }
    }

    #[test]
    fn each_role_may_do_what_it_does_and_nothing_else() {
        for (role, path, may) in [
            (Routing, "/causeway.directory.v1.Records/Follow", true),
            (Edge, "/causeway.directory.v1.Records/Follow", false),
            (Edge, "/causeway.directory.v1.Prekeys/Claim", true),
            (Routing, "/causeway.directory.v1.Prekeys/Claim", false),
            (MediaRelay, "/causeway.directory.v1.Prekeys/Claim", false),
            (Routing, "/causeway.routing.v1.Peers/Release", true),
            (Edge, "/causeway.routing.v1.Peers/Release", false),
            (KeyDirectory, "/causeway.routing.v1.Traces/Find", true),
            (OperatorTool, "/causeway.routing.v1.Traces/Find", false),
            (ProviderGateway, "/causeway.directory.v1.Traces/Find", true),
            (ProviderGateway, "/causeway.directory.v1.Providers/List", false),
            (OperatorTool, "/causeway.directory.v1.Providers/Register", true),
            (KeyDirectory, "/causeway.directory.v1.Providers/Register", false),
            (OperatorTool, "/causeway.directory.v1.Accounts/Login", false),
        ] {
            assert_eq!(allows(role, path), may, "{role} {path}");
        }
        for role in Role::ALL {
            for path in ["", "/", "//", "/causeway.routing.v1.Routing", "/causeway.routing.v1.Routing/Link/", "/x.Y/Z"]
            {
                assert!(!allows(role, path), "{role} {path}");
            }
        }
    }
}
