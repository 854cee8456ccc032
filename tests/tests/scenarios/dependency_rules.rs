//! The architecture's dependency rules, over `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A package of the workspace and what it depends on, tests and build scripts included.
#[derive(Debug)]
struct Package {
    /// `crates`, `services`, `tools`, `proto` or `tests`.
    place: String,
    /// Names of its dependencies, without those for tests only.
    uses: BTreeSet<String>,
    /// Names of its dependencies for tests.
    tests_use: BTreeSet<String>,
}

fn workspace() -> anyhow::Result<BTreeMap<String, Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(Path::new(ROOT).join("Cargo.toml"))
        .output()
        .context("cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let root = Path::new(metadata["workspace_root"].as_str().context("workspace_root")?).to_owned();
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = package["name"].as_str().context("name")?.to_owned();
        let manifest = Path::new(package["manifest_path"].as_str().context("manifest_path")?).to_owned();
        let place = manifest.strip_prefix(&root)?.components().next().context("a place")?;
        let place = place.as_os_str().to_string_lossy().into_owned();
        let (mut uses, mut tests_use) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let name = dependency["name"].as_str().context("name")?.to_owned();
            let for_tests = dependency["kind"] == "dev";
            if for_tests { &mut tests_use } else { &mut uses }.insert(name);
        }
        packages.insert(name, Package { place, uses, tests_use });
    }
    Ok(packages)
}

/// All sources below `folder` with their text.
fn sources(folder: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                found.push((path, text));
            }
        }
    }
    Ok(found)
}

fn all_sources() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut all = Vec::new();
    for place in ["crates", "services", "tools", "proto"] {
        all.extend(sources(&Path::new(ROOT).join(place))?);
    }
    Ok(all)
}

#[test]
fn crates_do_not_depend_on_services_and_services_not_on_each_other() -> anyhow::Result<()> {
    let packages = workspace()?;
    let placed = |place: &str| -> BTreeSet<&str> {
        packages.iter().filter(|(_, package)| package.place == place).map(|(name, _)| name.as_str()).collect()
    };
    let services = placed("services");
    anyhow::ensure!(services.len() == 5, "services: {services:?}");
    for (name, package) in &packages {
        let all: BTreeSet<_> = package.uses.union(&package.tests_use).map(String::as_str).collect();
        let used: Vec<_> = all.intersection(&services).copied().collect();
        // The binary composes the services; the sandbox is a provider that runs the host role as a library.
        let allowed: &[&str] = match name.as_str() {
            "causeway" => &["causeway-edge", "causeway-key-directory", "causeway-media-relay", "causeway-routing"],
            "causeway-sandbox" => &["causeway-media-relay"],
            // The deterministic simulation runs what the delivery of messages is, without sockets between.
            "causeway-simulation" => &["causeway-edge", "causeway-routing"],
            // What they cost is counted in one process, too.
            "causeway-costs" => &["causeway-edge", "causeway-key-directory", "causeway-routing"],
            // The model of scale simulates by the edges' own code who owns what and who may come in.
            "causeway-scale" => &["causeway-edge"],
            _ => &[],
        };
        let wrong: Vec<_> = used.iter().filter(|service| !allowed.contains(service)).collect();
        assert!(wrong.is_empty(), "{name} depends on services: {wrong:?}");
        if package.place == "crates" || package.place == "proto" {
            let tools = placed("tools");
            assert!(all.is_disjoint(&tools), "{name} depends on a tool");
        }
        // The load generator starts its deployments on servers of its own, as tests do.
        if package.place != "tests" && name != "causeway-bench" {
            let servers = package.uses.contains("causeway-test-servers");
            assert!(!servers, "{name} depends on servers for tests beyond its own tests");
        }
    }
    Ok(())
}

#[test]
fn each_layer_knows_only_what_it_may() -> anyhow::Result<()> {
    let packages = workspace()?;
    let own = |name: &str| -> anyhow::Result<BTreeSet<&str>> {
        let package = packages.get(name).with_context(|| format!("{name} is not in the workspace"))?;
        Ok(package.uses.iter().map(String::as_str).filter(|dependency| dependency.starts_with("causeway")).collect())
    };
    assert!(!own("causeway-stanza")?.contains("causeway-noise"));
    assert!(!own("causeway-noise")?.contains("causeway-stanza"));
    for pure in ["causeway-proto", "causeway-fetch", "causeway-runtime", "causeway-noise"] {
        let allowed = BTreeSet::from(["causeway-proto"]);
        assert!(own(pure)?.is_subset(&allowed), "{pure} must not know the domain: {:?}", own(pure)?);
    }
    assert_eq!(own("causeway-runtime")?, BTreeSet::new(), "mechanism only");
    assert_eq!(own("causeway-proto")?, BTreeSet::new());
    Ok(())
}

#[test]
fn dangerous_libraries_have_one_home() -> anyhow::Result<()> {
    let packages = workspace()?;
    for (library, homes) in [
        ("snow", &["causeway-noise"][..]),
        // key-directory uses key types and the signature check only; the next test looks. The ledger test and the load
        // generator make keys that key-directory accepts.
        (
            "libsignal-protocol-syft",
            &["causeway-client", "causeway-key-directory", "causeway-faults", "causeway-bench"],
        ),
        (
            "reqwest",
            &[
                "causeway-fetch",
                "causeway-client",
                "causeway-runtime",
                "causeway-tests",
                "causeway-demo",
                "causewayctl",
            ],
        ),
        ("jsonwebtoken", &["causeway-identity", "causeway-sandbox"]),
        // The ledger test counts what is left in mailboxes at the end.
        ("rusqlite", &["causeway-client", "causeway-key-directory", "causeway-routing", "causeway-faults"]),
        ("redis", &["causeway-redis"]),
        ("deadpool-postgres", &["causeway-postgres"]),
    ] {
        for (name, package) in &packages {
            let used = package.uses.contains(library);
            assert!(!used || homes.contains(&name.as_str()), "{name} must not depend on {library}");
        }
    }
    Ok(())
}

#[test]
fn only_the_sdk_holds_signal_sessions() -> anyhow::Result<()> {
    let sessions = ["message_encrypt", "message_decrypt", "process_prekey_bundle", "SessionRecord", "SessionStore"];
    for (path, text) in all_sources()? {
        if path.components().any(|part| part.as_os_str() == "client") {
            continue;
        }
        for name in sessions {
            assert!(!text.contains(name), "{} names {name}", path.display());
        }
    }
    Ok(())
}

#[test]
fn only_backend_files_name_a_database_client() -> anyhow::Result<()> {
    for (path, text) in all_sources()? {
        // `crates/postgres` and `crates/redis` are those homes for connections, the rest are stores' backends.
        let inside = |home: &str| {
            path.components().any(|part| part.as_os_str().to_string_lossy().trim_end_matches(".rs") == home)
        };
        for (client, home) in [("rusqlite::", "sqlite"), ("tokio_postgres::", "postgres"), ("redis::", "redis")] {
            let named = text.split(client).skip(1).count() > text.split(&format!("causeway_{client}")).skip(1).count();
            assert!(inside(home) || !named, "{} names {client}", path.display());
        }
    }
    Ok(())
}

#[test]
fn generated_code_stays_without_logic_of_ours() -> anyhow::Result<()> {
    let files = sources(&Path::new(ROOT).join("proto/src"))?;
    assert_eq!(files.len(), 1, "proto holds no module of its own: {files:?}");
    for (path, text) in files {
        assert!(!text.contains("fn ") && !text.contains("impl "), "{} holds logic", path.display());
    }
    Ok(())
}

#[test]
fn no_file_is_called_after_nothing() -> anyhow::Result<()> {
    for (path, _) in all_sources()? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = if stem == "mod" { path.parent().and_then(Path::file_name) } else { path.file_stem() };
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        assert!(
            !["common", "core", "utils", "util", "helpers", "helper", "misc"].contains(&name.as_str()),
            "{}",
            path.display()
        );
    }
    Ok(())
}
