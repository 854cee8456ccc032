//! Counts with valgrind, which runs a program on a processor of its own making: its Callgrind counts every instruction of
//! all threads, its DHAT each block of memory that they ask for. Setting up counts, too, so a path is run twice, once with
//! more operations, and the difference is theirs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::Context as _;
use serde_json::Value;

use crate::figures::{Cost, Maker};
use crate::paths::CorePath;

/// Paths that are counted at a time.
const TOGETHER: usize = 2;

/// What operations of each of these paths cost, in the same order.
pub(crate) fn count(paths: &[&'static CorePath]) -> anyhow::Result<Vec<Cost>> {
    let folder = tempfile::tempdir().context("a folder for what valgrind writes")?;
    let authority = rcgen::generate_simple_self_signed([String::from("costs.example")])?;
    std::fs::write(authorities(folder.path()), authority.cert.pem()).context("a certificate")?;
    let (next, costs) = (Mutex::new(0..paths.len()), Mutex::new(vec![None; paths.len()]));
    let work = || -> anyhow::Result<()> {
        loop {
            let Some(index) = next.lock().ok().and_then(|mut next| next.next()) else { return Ok(()) };
            let cost = count_one(paths[index], folder.path())?;
            if let Ok(mut costs) = costs.lock() {
                costs[index] = Some(cost);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a count panicked"))?)
    })?;
    let costs = costs.into_inner().context("a count panicked")?;
    costs.into_iter().collect::<Option<_>>().context("a path was not counted")
}

fn count_one(path: &CorePath, folder: &Path) -> anyhow::Result<Cost> {
    let callgrind = |operations| {
        let file = folder.join(format!("{}.callgrind", path.name));
        run(valgrind(folder).arg("--tool=callgrind").arg(option("--callgrind-out-file=", &file)), path, operations)?;
        instructions(&read(&file)?)
    };
    let dhat = |operations| {
        let file = folder.join(format!("{}.dhat", path.name));
        // Where they are asked for does not matter here, and costs time.
        let mut command = valgrind(folder);
        command.args(["--tool=dhat", "--num-callers=1"]).arg(option("--dhat-out-file=", &file));
        run(&mut command, path, operations)?;
        allocations(&read(&file)?)
    };
    let all = path.warm_up + path.counted;
    // Setting up is not the same to the last instruction, so that nothing may be less than nothing.
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / f64::from(path.counted);
    let ((blocks, bytes), (all_blocks, all_bytes)) = (dhat(path.warm_up)?, dhat(all)?);
    Ok(Cost {
        instructions: each(callgrind(path.warm_up)?, callgrind(all)?),
        allocations: each(blocks, all_blocks),
        bytes: each(bytes, all_bytes),
    })
}

/// Writes a profile of a path, and says where.
pub(crate) fn profile(path: &CorePath) -> anyhow::Result<PathBuf> {
    let folder = Path::new("target/costs");
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let file = folder.join(format!("{}.callgrind", path.name));
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]).arg(option("--callgrind-out-file=", &file));
    run(&mut command, path, path.warm_up + path.counted)?;
    Ok(file)
}

/// What the figures of this machine are made with.
pub(crate) fn maker() -> anyhow::Result<Maker> {
    let valgrind = said("valgrind", "--version")?;
    let valgrind = valgrind.trim().trim_start_matches("valgrind-").to_owned();
    let cc = said("cc", "-dumpfullversion")?.trim().to_owned();
    let libc = said("getconf", "GNU_LIBC_VERSION")?.trim().to_owned();
    Ok(Maker { architecture: std::env::consts::ARCH.to_owned(), valgrind, cc, libc })
}

fn said(program: &str, argument: &str) -> anyhow::Result<String> {
    let fix = || format!("{program} {argument}: is it installed? (tools/setup.sh test)");
    let output = Command::new(program).arg(argument).output().with_context(fix)?;
    anyhow::ensure!(output.status.success(), "{}", fix());
    String::from_utf8(output.stdout).with_context(fix)
}

fn valgrind(folder: &Path) -> Command {
    let mut command = Command::new("valgrind");
    // Nothing of the environment, so that a shell's settings and the system's certificates do not count.
    command.env_clear().env("PATH", "/usr/bin:/bin").env("SSL_CERT_FILE", authorities(folder)).arg("--quiet");
    command
}

/// Whom programs trust: one certificate, as reading those of the system would take most of the time.
fn authorities(folder: &Path) -> PathBuf {
    folder.join("authorities.pem")
}

fn option(name: &str, file: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(file);
    option
}

fn run(command: &mut Command, path: &CorePath, operations: u32) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("this program's file")?;
    command.arg(own).args(["run", path.name, &operations.to_string()]).stdin(Stdio::null());
    let output = command.output().context("valgrind: is it installed? (tools/setup.sh test)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{} failed under valgrind: {}\n{said}", path.name, output.status);
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).context("what valgrind has written")
}

/// From Callgrind's file.
fn instructions(text: &str) -> anyhow::Result<u64> {
    anyhow::ensure!(text.lines().any(|line| line == "events: Ir"), "Callgrind does not count instructions alone");
    let totals =
        text.lines().find_map(|line| line.strip_prefix("totals: ")).context("Callgrind's file has no totals")?;
    totals.trim().parse().context("Callgrind's totals")
}

/// Blocks and their bytes, from DHAT's file: `tbk` and `tb` of each place that allocates.
fn allocations(text: &str) -> anyhow::Result<(u64, u64)> {
    let document: Value = serde_json::from_str(text).context("DHAT's file")?;
    let number = |value: &Value| value.as_u64().context("DHAT's file has no number where one must be");
    let (mut blocks, mut bytes) = (0, 0);
    for place in document["pps"].as_array().context("DHAT's file names no places")? {
        blocks += number(&place["tbk"])?;
        bytes += number(&place["tb"])?;
    }
    Ok((blocks, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_writes_is_read() {
        let text = "# callgrind format\nversion: 1\nevents: Ir\nfn=(1) main\n5 100\n\ntotals: 153251\n";
        assert_eq!(instructions(text).unwrap(), 153_251);
        assert!(instructions(&text.replace("Ir\n", "Ir Dr\n")).is_err(), "something else is counted");
        assert!(instructions(&text.replace("totals", "tot")).is_err());
    }

    #[test]
    fn what_dhat_writes_is_added_up() {
        let text = r#"{"dhatFileVersion":2,"te":153251,"pps":[{"tb":1024,"tbk":1},{"tb":60,"tbk":3}]}"#;
        assert_eq!(allocations(text).unwrap(), (4, 1_084));
        assert!(allocations(&text.replace("\"tbk\":1", "\"x\":1")).is_err(), "a place without blocks");
        assert!(allocations("").is_err());
    }
}
