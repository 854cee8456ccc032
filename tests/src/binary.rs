//! Where the `causeway` binary is.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

/// `$CAUSEWAY_BIN`, or what `cargo build -p causeway` makes, once for this process. Cargo's own lock lets test processes
/// that start at the same time do it one after the other; all but the first find it done.
pub(crate) fn causeway() -> anyhow::Result<PathBuf> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PATH.get_or_init(|| find().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path.clone()),
        Err(error) => bail!("no causeway binary: {error}"),
    }
}

/// `$CAUSEWAY_EARLIER_BIN`, or what `tools/earlier.sh` makes: the `causeway` of the commit in `tests/upgrade/EARLIER`.
pub(crate) fn earlier() -> anyhow::Result<PathBuf> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PATH.get_or_init(|| find_earlier().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path.clone()),
        Err(error) => bail!("no causeway binary of the earlier version: {error}"),
    }
}

fn find_earlier() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CAUSEWAY_EARLIER_BIN").map(PathBuf::from) {
        anyhow::ensure!(path.is_file(), "CAUSEWAY_EARLIER_BIN is {}, which is no file", path.display());
        return Ok(path);
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let script = std::process::Command::new("tools/earlier.sh").current_dir(root).output();
    let made = script.context("run tools/earlier.sh")?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(PathBuf::from(root).join(String::from_utf8(made.stdout)?.trim()))
}

/// A binary of this workspace: `causeway`, `causewayctl` or `sandbox`.
///
/// # Errors
/// It is not there and cannot be built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = causeway()?.with_file_name(name);
    anyhow::ensure!(path.is_file(), "{} is not there: run `cargo build --workspace`", path.display());
    Ok(path)
}

fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CAUSEWAY_BIN").map(PathBuf::from) {
        anyhow::ensure!(path.is_file(), "CAUSEWAY_BIN is {}, which is no file", path.display());
        return Ok(path);
    }
    // .../target/debug/deps/scenarios-0123456789abcdef
    let this = std::env::current_exe().context("path of the test binary")?;
    let profile = this.ancestors().nth(2).context("folder of the test binary")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "--quiet"]);
    for package in ["causeway", "causewayctl", "causeway-sandbox"] {
        build.args(["--package", package]);
    }
    build.arg("--manifest-path");
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let built = build.output().context("run cargo build -p causeway")?;
    anyhow::ensure!(built.status.success(), "cargo build -p causeway: {}", String::from_utf8_lossy(&built.stderr));
    let path = profile.join("causeway");
    anyhow::ensure!(path.is_file(), "{} is not there after cargo build", path.display());
    Ok(path)
}
