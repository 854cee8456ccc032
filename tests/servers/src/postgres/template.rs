//! A new cluster's files, made once by `initdb` and then copied.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::postgres::wire::USER;
use crate::{Folder, ServerError, folder};

/// Where PostgreSQL's programs are, and as whom they run.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    bin: PathBuf,
    /// Name, id and group of the user; `None`: the one of this process. PostgreSQL refuses to run as root.
    user: Option<(String, u32, u32)>,
}

impl Installation {
    pub(crate) fn find() -> Result<Self, ServerError> {
        let missing = ServerError::Missing { program: "postgres", package: "postgresql" };
        let bin = newest(Path::new("/usr/lib/postgresql")).or_else(in_path).ok_or(missing)?;
        let user = if folder::user() == 0 { Some(unprivileged()?) } else { None };
        Ok(Self { bin, user })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|(name, ..)| name.as_str())
    }

    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.user.as_ref().map(|(_, user, group)| (*user, *group))
    }

    /// Makes the files of a new cluster at `to`.
    pub(crate) fn new_cluster(&self, to: &Path) -> Result<(), ServerError> {
        let template = self.template()?;
        folder::copy(&template, to, self.owner()).map_err(ServerError::io("copy the template of a new cluster"))
    }

    /// Where the template is; makes it if nobody has.
    fn template(&self) -> Result<PathBuf, ServerError> {
        let store = store();
        std::fs::create_dir_all(&store).map_err(ServerError::io(store.display().to_string()))?;
        let release = self.bin.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let template = store.join(format!("postgres-{release}-{FORMAT}"));
        if template.exists() {
            return Ok(template);
        }
        let gate = store.join("lock");
        let gate_file = OpenOptions::new().create(true).append(true).open(&gate);
        let gate_file = gate_file.map_err(ServerError::io(gate.display().to_string()))?;
        gate_file.lock().map_err(ServerError::io(gate.display().to_string()))?;
        if !template.exists() {
            // Where the user of the server can write, which the target folder may be no such place.
            let folder = Folder::create()?;
            let data = self.init(&folder)?;
            let draft = store.join("draft");
            let failed = || ServerError::io(template.display().to_string());
            if draft.exists() {
                std::fs::remove_dir_all(&draft).map_err(failed())?;
            }
            folder::copy(&data, &draft, None).map_err(failed())?;
            std::fs::rename(&draft, &template).map_err(failed())?;
        }
        Ok(template)
    }

    fn init(&self, folder: &Folder) -> Result<PathBuf, ServerError> {
        let home = folder.path().join("home");
        std::fs::create_dir(&home).map_err(ServerError::io("folder for initdb"))?;
        folder::give(&home, self.owner()).map_err(ServerError::io("folder for initdb"))?;
        let data = home.join("data");
        let mut initdb = crate::command(&self.program("initdb"), self.user());
        initdb.arg("--pgdata").arg(&data).args(["--username", USER, "--auth=trust", "--locale=C", "--encoding=UTF8"]);
        // Small, since it is copied often: segments of 1 MiB.
        initdb.args(["--wal-segsize=1", "--no-sync", "--no-instructions"]);
        run(initdb, "initdb")?;
        // Nobody needs the second template of the two.
        let mut single = crate::command(&self.program("postgres"), self.user());
        single.args(["--single", "-c", "fsync=off", "-D"]).arg(&data).arg("postgres");
        let script = folder.path().join("script");
        let sql =
            "UPDATE pg_database SET datistemplate = false WHERE datname = 'template0';\nDROP DATABASE template0;\n";
        std::fs::write(&script, sql).map_err(ServerError::io("script for initdb"))?;
        single.stdin(std::fs::File::open(&script).map_err(ServerError::io("script for initdb"))?);
        run(single, "postgres --single")?;
        Ok(data)
    }
}

/// Runs a program to its end.
pub(crate) fn run(mut command: Command, what: &str) -> Result<(), ServerError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/").env_remove("LD_PRELOAD");
    let child = crate::spawn(command).map_err(ServerError::io(what))?;
    let output = child.wait_with_output().map_err(ServerError::io(what))?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ServerError::Server { what: format!("{what} ended with {}", output.status), log })
}

/// `$CARGO_TARGET_DIR/test-servers`, or in the target folder of this workspace.
fn store() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"))).join("test-servers")
}

fn newest(installed: &Path) -> Option<PathBuf> {
    let releases = std::fs::read_dir(installed).ok()?.flatten();
    let mut releases: Vec<(u32, PathBuf)> = releases
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").is_file())
        .collect();
    releases.sort();
    releases.pop().map(|(_, bin)| bin)
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let postgres = std::env::split_paths(&path).map(|folder| folder.join("postgres")).find(|file| file.is_file())?;
    // A link to where the others are as well.
    Some(postgres.canonicalize().ok()?.parent()?.to_owned())
}

/// The user that Debian's package makes, or the one who is nobody.
fn unprivileged() -> Result<(String, u32, u32), ServerError> {
    let users = std::fs::read_to_string("/etc/passwd").map_err(ServerError::io("/etc/passwd"))?;
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [user, _, id, group, ..] = fields[..] else { return None };
            (user == name).then_some(())?;
            Some((name.to_owned(), id.parse().ok()?, group.parse().ok()?))
        })
    };
    find("postgres").or_else(|| find("nobody")).ok_or_else(|| {
        ServerError::Answer(
            "PostgreSQL does not run as root, and there is neither a user postgres nor nobody".to_owned(),
        )
    })
}

/// Raised when what `init` makes changes.
const FORMAT: u32 = 1;
