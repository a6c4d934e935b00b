//! What goes away before it is proved: mydumper took it back, or the dump lacks it.

use super::known::{Known, Lost, Stage};
use super::{DumpState, Local, Scan};
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::listing::Listing;
use crate::model::taken_back::{may_be_empty, renamed_to, rows_beside};

/// What stands beside a `.sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// No `.dat` of its name was ever seen.
    Nothing,
    /// A `.dat` that may hold no row, or that mydumper took back.
    MayBeEmpty,
    /// A `.dat` with rows.
    Rows,
}

impl DumpState {
    /// Whether mydumper may still delete it: such a file waits for the dump's end, so that none goes up in vain.
    pub(super) fn may_be_taken_back(&self, name: &FileName, identity: &FileIdentity) -> bool {
        may_be_empty(name.as_str(), identity.size) || self.rows_beside(name) == Beside::MayBeEmpty
    }

    /// What the `.dat` beside a `.sql` is.
    pub(super) fn rows_beside(&self, name: &FileName) -> Beside {
        let Some(beside) = rows_beside(name.as_str()) else { return Beside::Nothing };
        match self.files.get(beside.as_str()).map(|known| &known.stage) {
            None => Beside::Nothing,
            Some(Stage::Open(waiting)) if may_be_empty(&beside, waiting.identity.size) => Beside::MayBeEmpty,
            Some(Stage::TakenBack(_)) => Beside::MayBeEmpty,
            Some(_) => Beside::Rows,
        }
    }

    /// What was there at the look before, and is not any more. `found` of those are still there. Returns those that were
    /// followed.
    pub(super) fn forget_absent(&mut self, scan: &Scan, found: usize) -> Vec<FileName> {
        if found == self.present.len() {
            return Vec::new();
        }
        let scans = self.scans;
        let (present, mut gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.present)
            .into_iter()
            .partition(|name| self.files.get(name).is_some_and(|known| known.seen == scans));
        self.present = present;
        // A `.dat` before the `.sql` beside it, which is judged by it.
        gone.sort_unstable();
        let is_followed = |name: &&FileName| self.files.get(*name).is_some_and(|known| known.growth.is_some());
        let forsaken = gone.iter().filter(is_followed).cloned().collect();
        for name in gone {
            let last = scan.vanished.iter().find(|(vanished, _)| *vanished == name).map(|(_, last)| *last);
            self.miss(&name, last, &scan.listing);
        }
        forsaken
    }

    /// A name that is not there any more.
    fn miss(&mut self, name: &FileName, last: Option<FileIdentity>, listing: &Listing) {
        let Some(known) = self.files.get(name) else { return };
        let stage = match &known.stage {
            Stage::Open(waiting) => {
                let identity = last.unwrap_or(waiting.identity);
                self.stage_of_gone(name, &identity, Some(listing), false)
            }
            Stage::Uploaded(uploaded) => match &uploaded.local {
                Local::Kept(identity) if was_renamed(name, identity, listing) => Stage::TakenBack(Some(0)),
                // Somebody tidied up; the object is proved.
                Local::Kept(_) => return self.removed(name),
                Local::Removed => return,
            },
            // The job's end tells.
            Stage::Uploading(_) | Stage::TakenBack(_) | Stage::Lost(_) => return,
        };
        self.change(name, |known| {
            known.stage = stage;
            known.setback = None;
            known.growth = None;
        });
    }

    /// What a file is that went away before it was proved.
    pub(super) fn stage_of_gone(
        &self,
        name: &FileName,
        identity: &FileIdentity,
        listing: Option<&Listing>,
        object_left: bool,
    ) -> Stage {
        let beside = self.rows_beside(name);
        let by_mydumper = !self.ended
            && (may_be_empty(name.as_str(), identity.size)
                || beside == Beside::MayBeEmpty
                || listing.is_some_and(|listing| was_renamed(name, identity, listing)));
        if by_mydumper || name.is_metadata() {
            return Stage::TakenBack(object_left.then_some(0));
        }
        let why = format!("it went away before it was in the bucket, with {} bytes or more", identity.size);
        let is_statement = !self.ended && beside == Beside::Nothing && rows_beside(name.as_str()).is_some();
        Stage::Lost(Box::new(Lost { why, unless_rows_are_beside: is_statement }))
    }

    pub(super) fn due_withdrawals(&self) -> Vec<FileName> {
        if self.sums.withdrawn == 0 {
            return Vec::new();
        }
        let is_due = |known: &Known| matches!(known.stage, Stage::TakenBack(Some(_))) && known.failure().is_none();
        self.files.iter().filter(|(_, known)| is_due(known)).map(|(name, _)| name.clone()).collect()
    }
}

/// Whether 0.10 gave the table's first file the name of its only one: the same inode.
fn was_renamed(name: &FileName, identity: &FileIdentity, listing: &Listing) -> bool {
    let Some(now) = renamed_to(name.as_str()) else { return false };
    listing.iter().any(|(there, inode)| there == now && inode == identity.inode)
}
