//! What must be in no log: panics, and names that only users may see.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;

/// Findings that are given at most.
const MAX: usize = 20;

/// How many lines these files have, and those that tell of a panic or hold one of `words`, with the file's name. A file that
/// is not there is of a process that never started.
///
/// # Errors
/// A file cannot be read.
pub fn logs(files: &[PathBuf], words: &[&str]) -> anyhow::Result<(u64, Vec<(String, String)>)> {
    let (mut lines, mut found) = (0, Vec::new());
    for path in files {
        let Ok(file) = File::open(path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for line in BufReader::new(file).split(b'\n') {
            let line = line.with_context(|| path.display().to_string())?;
            lines += 1;
            let line = String::from_utf8_lossy(&line);
            if line.contains("panicked at") || words.iter().any(|word| line.contains(word)) {
                found.push((name.clone(), line.into_owned()));
                if found.len() >= MAX {
                    return Ok((lines, found));
                }
            }
        }
    }
    Ok((lines, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_names_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.log");
        std::fs::write(&path, "fine\nthread 'x' panicked at y\nfor ada@home\nfine").unwrap();
        let (lines, found) = logs(&[path, folder.path().join("none")], &["ada"]).unwrap();
        assert_eq!((lines, found.len()), (4, 2));
        assert_eq!(found[0].0, "edge.log");
    }
}
