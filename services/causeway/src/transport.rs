//! How this process speaks with the others: in plain text, or with `[server.tls]` over mutual TLS.

use std::sync::Arc;

use anyhow::Context as _;
use causeway_runtime::clock::SystemClock;
use causeway_runtime::config::{Check as _, ConfigError, ensure};
use causeway_runtime::grpc::{Transport, check_scheme};
use causeway_runtime::lifecycle::Lifecycle;
use causeway_runtime::tls::{Role as Identity, Tls};

use crate::config::{Config, Role, ServerConfig};

/// The transport of a process whose certificate has the role `own`. With TLS, its files are looked at until `life` drains.
pub(crate) fn open(config: &Config, own: Identity, life: &Lifecycle) -> anyhow::Result<Transport> {
    let Some(tls) = &config.server.tls else { return Ok(Transport::Plain) };
    let deployment = match own {
        Identity::KeyDirectory => &config.directory.deployment,
        _ => &config.edge.deployment,
    };
    let tls = Tls::load(tls.clone(), deployment, own, Arc::new(SystemClock)).context("server.tls")?;
    tls.follow(life);
    Ok(Transport::Mutual(tls))
}

/// Checks `[server.tls]`, and that each address that `role` uses is as it says; without a role, each that is set.
pub(crate) fn check(config: &Config, role: Option<Role>) -> Result<(), ConfigError> {
    let ServerConfig { tls, directory_urls, routing_urls, media_urls, allow_plaintext_grpc, .. } = &config.server;
    if let Some(tls) = tls {
        tls.check()?;
        let fix = "remove it: with server.tls nothing is spoken in plain text";
        ensure("server.allow_plaintext_grpc", !allow_plaintext_grpc, "true", fix)?;
    }
    let uses = |users: &[Role]| role.is_none_or(|role| users.contains(&role));
    let defaults = ServerConfig::default();
    let advertised = [config.routing.advertise_url.clone()];
    for (field, urls, default, users) in [
        ("server.directory_urls", &directory_urls[..], &defaults.directory_urls[..], &[Role::Edge, Role::Routing][..]),
        ("server.routing_urls", routing_urls, &defaults.routing_urls, &[Role::Edge, Role::KeyDirectory]),
        ("server.media_urls", media_urls, &defaults.media_urls, &[Role::Edge]),
        ("routing.advertise_url", &advertised, &[String::new()], &[Role::Routing]),
    ] {
        // Nobody has to set what the process does not use; a key-directory without routings shows no delivery traces.
        let may_be_left_out = matches!(role, None | Some(Role::KeyDirectory)) || field == "routing.advertise_url";
        let unset = urls == default && may_be_left_out;
        let fits = urls.iter().all(|url| check_scheme(tls.is_some(), url).is_ok());
        let fix = match tls {
            Some(_) => "with server.tls, write each as https://host:port or dns+https://name:port",
            None => "without server.tls, write each as http://host:port or dns+http://name:port",
        };
        ensure(field, !uses(users) || unset || fits, urls.join(", "), fix)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use causeway_runtime::tls::TlsConfig;

    use super::*;

    fn secured() -> Config {
        let mut config = Config::load(Path::new("data"), None, None).unwrap();
        config.server.tls = Some(TlsConfig {
            certificate_file: "tls.crt".into(),
            key_file: "tls.key".into(),
            ca_file: "ca.crt".into(),
            ..TlsConfig::default()
        });
        for (urls, service) in [
            (&mut config.server.directory_urls, "dns+https://key-directory.example:7450"),
            (&mut config.server.routing_urls, "dns+https://routing.example:7451"),
            (&mut config.server.media_urls, "https://media-relay.example:7452"),
        ] {
            *urls = vec![service.to_owned()];
        }
        config
    }

    #[test]
    fn with_tls_the_services_may_listen_to_the_network() {
        let mut config = secured();
        config.server.routing_listen = "0.0.0.0:7451".parse().unwrap();
        config.check_for(None).unwrap();
        config.server.tls = None;
        assert!(config.check_for(None).is_err());
    }

    #[test]
    fn plain_text_and_tls_are_not_mixed() {
        type Spoil = fn(&mut Config);
        let wrong: [(&str, Spoil); 6] = [
            ("server.allow_plaintext_grpc", |config| config.server.allow_plaintext_grpc = true),
            ("server.tls.key_file", |config| config.server.tls.as_mut().unwrap().key_file = "".into()),
            ("server.directory_urls", |config| config.server.directory_urls.push("http://10.0.0.1:7450".to_owned())),
            ("server.routing_urls", |config| config.server.routing_urls = vec!["dns+http://r:7451".to_owned()]),
            ("server.media_urls", |config| config.server.media_urls = vec!["http://m:7452".to_owned()]),
            ("routing.advertise_url", |config| config.routing.advertise_url = "http://r-1:7451".to_owned()),
        ];
        for (field, spoil) in wrong {
            let mut config = secured();
            spoil(&mut config);
            let error = config.check_for(None).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
        let mut config = secured();
        config.server.tls = None;
        let error = config.check_for(None).unwrap_err().to_string();
        assert!(error.contains("server.directory_urls") && error.contains("without server.tls"), "{error}");
    }

    #[test]
    fn what_a_process_does_not_use_need_not_be_set() {
        let mut config = secured();
        let defaults = ServerConfig::default();
        (config.server.routing_urls, config.server.media_urls) = (defaults.routing_urls, defaults.media_urls);
        for role in [None, Some(Role::Routing), Some(Role::KeyDirectory), Some(Role::MediaRelay), Some(Role::All)] {
            config.check_for(role).unwrap();
        }
        let error = config.check_for(Some(Role::Edge)).unwrap_err().to_string();
        assert!(error.contains("server.routing_urls") && error.contains("https://"), "{error}");
        // What a key-directory would not start with, it is told before.
        config.server.routing_urls = vec!["http://routing.example:7451".to_owned()];
        let error = config.check_for(Some(Role::KeyDirectory)).unwrap_err().to_string();
        assert!(error.contains("server.routing_urls") && error.contains("https://"), "{error}");
    }
}
