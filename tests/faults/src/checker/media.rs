//! I15: files. What the host has said that it has can be fetched, whole and unchanged.

use std::collections::BTreeMap;

use super::history::History;
use super::rules::Rule;
use super::{Invariant, MediaTotals};
use crate::ledger::Fetched;

/// Files of a run, by their numbers.
#[derive(Default)]
pub(super) struct Media {
    files: BTreeMap<u32, File>,
    pub(super) totals: MediaTotals,
}

#[derive(Default)]
struct File {
    began: u64,
    /// When the host said that it has all of it.
    stored: Option<u64>,
    /// Fetched after all was healed.
    fetched: bool,
    /// Why it was not, the last time.
    why: String,
}

/// What came of an upload.
pub(super) struct Uploaded {
    pub(super) ok: bool,
    pub(super) refused: bool,
    pub(super) why: String,
}

/// What came of a download.
pub(super) struct Download {
    pub(super) began: u64,
    pub(super) x: u32,
    pub(super) r: Fetched,
    pub(super) last: bool,
    pub(super) why: String,
}

impl History {
    pub(super) fn upload(&mut self, t: u64, x: u32) {
        self.media.totals.uploads += 1;
        self.media.files.insert(x, File { began: t, ..File::default() });
    }

    pub(super) fn uploaded(&mut self, t: u64, x: u32, uploaded: &Uploaded) {
        let Some(file) = self.media.files.get_mut(&x) else { return };
        let began = file.began;
        if uploaded.ok {
            file.stored = Some(t);
            self.media.totals.stored += 1;
        }
        self.answered(began, t, uploaded.refused, || format!("the upload of file {x} was refused: {}", uploaded.why));
    }

    pub(super) fn download(&mut self, t: u64, download: Download) {
        let Download { began, x, r, last, why } = download;
        *self.media.totals.downloads.entry(r).or_insert(0) += 1;
        if matches!(r, Fetched::Right | Fetched::Wrong) {
            self.judged(Rule::MediaBytes, 1);
        }
        if r == Fetched::Wrong {
            let what = format!("file {x} was handed out with other bytes: {why}");
            self.violate(Invariant::Media, t, None, None, what);
        }
        self.answered(began, t, r == Fetched::Refused, || format!("file {x} was refused: {why}"));
        if let Some(file) = self.media.files.get_mut(&x).filter(|_| last) {
            file.fetched |= r == Fetched::Right;
            file.why = why;
        }
    }

    /// With no fault near, nothing right is refused.
    fn answered(&mut self, began: u64, t: u64, refused: bool, what: impl FnOnce() -> String) {
        if self.is_disturbed(began, t) {
            self.media.totals.refused_in_faults += u64::from(refused);
            return;
        }
        self.judged(Rule::MediaAnswers, 1);
        if refused {
            self.violate(Invariant::Media, t, None, None, what());
        }
    }

    /// When everything is known.
    pub(super) fn media_kept(&mut self) {
        let stored: Vec<_> = self.media.files.iter().filter(|(_, file)| file.stored.is_some()).collect();
        let missing: Vec<(u64, String)> = stored
            .iter()
            .filter(|(_, file)| !file.fetched)
            .map(|(x, file)| {
                let what = format!("file {x} was stored and cannot be fetched when all is healed: {}", file.why);
                (file.stored.unwrap_or_default(), what)
            })
            .collect();
        let count = stored.len() as u64;
        self.judged(Rule::MediaKept, count);
        self.media.totals.lost = missing.len() as u64;
        for (t, what) in missing {
            self.violate(Invariant::Media, t, None, None, what);
        }
    }
}
