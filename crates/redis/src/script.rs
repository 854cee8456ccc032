//! A Lua script over one key.

use redis::Cmd;

/// A script that runs as one step in Redis. It touches `KEYS[1]` and nothing else, so that it runs on every Cluster.
#[derive(Debug)]
pub struct Script {
    code: &'static str,
    /// By which Redis knows it, once it has run there.
    hash: String,
}

impl Script {
    /// A script from its Lua text.
    pub fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// By its hash: short, but unknown to a server that has been started since, or took over.
    pub(crate) fn by_hash(&self, key: &str, args: &[Vec<u8>]) -> Cmd {
        command("EVALSHA", &self.hash, key, args)
    }

    /// By its text, which the server remembers.
    pub(crate) fn by_text(&self, key: &str, args: &[Vec<u8>]) -> Cmd {
        command("EVAL", self.code, key, args)
    }
}

fn command(verb: &str, script: &str, key: &str, args: &[Vec<u8>]) -> Cmd {
    let mut command = redis::cmd(verb);
    command.arg(script).arg(1).arg(key);
    for arg in args {
        command.arg(&arg[..]);
    }
    command
}
