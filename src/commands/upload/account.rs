//! What earlier runs of this dump uploaded and gave up here, and whether the bucket has exactly that.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use parking_lot::{Mutex, MutexGuard};
use tracing::debug;

use super::session::Session;
use crate::aside::aside;
use crate::model::etag::ETag;
use crate::model::file_name::FileName;
use crate::model::manifest::{ContentHash, ObjectRecord, Proof};
use crate::model::record::{Objects, Record};
use crate::model::state::{Local, Uploaded};
use crate::model::taken_back::renamed_to;
use crate::model::units::ByteSize;
use crate::model::user_metadata::{BROKEN, DUMP_ID, ROWS, SHA256, told_part_sizes};
use crate::s3::ObjectHead;

/// What earlier runs left to be accounted for.
#[derive(Debug, Default)]
pub(super) struct EarlierRuns {
    /// What they gave up here: exactly this must be in the bucket, beside what is here. `None`: nothing tells.
    given: Option<Objects>,
    /// Why this dump can never be committed.
    doomed: Option<String>,
    /// Objects of this dump whose files are not here.
    adopted: Mutex<BTreeMap<FileName, Objects>>,
}

impl EarlierRuns {
    /// By the record beside the dump. `is_new`: the prefix had no claim of this dump.
    pub fn of(record: Option<&Record>, is_new: bool) -> Self {
        let Some(record) = record else { return Self::default() };
        let doomed = (is_new && record.binds()).then(|| match record.given.files {
            0 => format!(
                "it was committed to {}, or parts of it are there alone, and the claim there is gone",
                record.to
            ),
            files => format!(
                "{files} files of it were removed here after their upload to {}, and the claim there is gone",
                record.to
            ),
        });
        Self { given: Some(record.given), doomed, adopted: Mutex::default() }
    }

    fn adopted(&self) -> MutexGuard<'_, BTreeMap<FileName, Objects>> {
        self.adopted.lock()
    }
}

impl Session<'_> {
    /// Takes in what earlier runs uploaded and gave up here. The object itself says that it is of this dump; that it is
    /// the one that was given up, and that none is missing, the record says.
    pub(super) async fn adopt_earlier(&self) -> anyhow::Result<()> {
        let transfer = &self.shared.transfer;
        let unknown =
            |name: &&FileName| !name.is_metadata() && self.shared.state().find_uploaded(name.as_str()).is_none();
        let unknown: Vec<FileName> = transfer.earlier.keys().filter(unknown).cloned().collect();
        let here = self.present(unknown.clone()).await;
        futures_util::stream::iter(unknown.iter().filter(|name| !here.contains(*name)))
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(transfer.writer.gate.width(), |name| self.adopt(name))
            .await?;
        self.withdraw_renamed().await
    }

    /// Those of the names that the directory has.
    async fn present(&self, names: Vec<FileName>) -> HashSet<FileName> {
        let directory = Arc::clone(&self.directory);
        aside(move || names.into_iter().filter(|name| directory.identity(name.as_str()).is_ok()).collect()).await
    }

    /// Up to 0.10.5 mydumper may have renamed a file between its upload and our death: nobody gave the old name up.
    async fn withdraw_renamed(&self) -> anyhow::Result<()> {
        let Some(given) = self.earlier.given else { return Ok(()) };
        let adopted = self.earlier.adopted().clone();
        if total(adopted.values()) == given {
            return Ok(());
        }
        let new_names = adopted.keys().filter_map(|name| renamed_to(name.as_str())?.parse().ok()).collect();
        let here = self.present(new_names).await;
        let has_new_name = |name: &FileName| {
            renamed_to(name.as_str())
                .is_some_and(|now| self.shared.state().find_uploaded(&now).is_some() || here.contains(now.as_str()))
        };
        let renamed: Vec<_> = adopted.iter().filter(|(name, _)| has_new_name(name)).collect();
        if total(adopted.values()).without(total(renamed.iter().map(|(_, object)| *object))) != given {
            return Ok(());
        }
        for (name, _) in renamed {
            debug!(file = %name, "mydumper gave it another name after its upload");
            self.shared.transfer.withdraw(name).await?;
            self.shared.state().reopen(name);
            self.earlier.adopted().remove(name);
        }
        Ok(())
    }

    /// Why what earlier runs saw and gave up is not what there is now.
    pub(super) fn why_unaccounted(&self) -> Option<String> {
        if let Some(doomed) = &self.earlier.doomed {
            return Some(doomed.clone());
        }
        let there = total(self.earlier.adopted().values());
        match self.earlier.given {
            None if there.files > 0 => {
                return Some(format!(
                    "{} of its files are in the bucket alone, from an earlier run, and nothing here tells whether they \
                     are all that it removed: a run before 0.2, or a filesystem without extended attributes",
                    there.files
                ));
            }
            Some(given) if given != there => {
                return Some(format!(
                    "earlier runs removed {} files ({}) here after their upload, and the bucket has {} ({}) of this dump \
                     beside those that are here: objects are missing there, or are other ones",
                    given.files,
                    ByteSize(given.bytes).human(),
                    there.files,
                    ByteSize(there.bytes).human()
                ));
            }
            _ => {}
        }
        let missing = self.shared.state().missing();
        (missing > 0).then(|| {
            format!(
                "{missing} files that an earlier run saw in the directory are neither there any more nor in the bucket"
            )
        })
    }

    async fn adopt(&self, name: &FileName) -> anyhow::Result<()> {
        let transfer = &self.shared.transfer;
        let head = self.store.head(&transfer.writer.prefix.key(name)?).await?;
        let Some(head) = head.filter(|head| head.metadata.get(DUMP_ID) == Some(&transfer.writer.dump_id)) else {
            return Ok(());
        };
        let broken = head.metadata.get(BROKEN).map(|why| why.as_str().into());
        let rows = head.metadata.get(ROWS).and_then(|rows| rows.parse().ok());
        let has_opaque_etags = transfer.writer.claim.lock().await.has_opaque_etags();
        let object = record_of(head, has_opaque_etags);
        self.earlier.adopted().insert(name.clone(), Objects::of(name, &object));
        self.shared.state().adopt(name.clone(), Uploaded { object, local: Local::Removed, broken, rows });
        Ok(())
    }
}

fn total<'a>(objects: impl Iterator<Item = &'a Objects>) -> Objects {
    objects.fold(Objects::default(), |sum, object| sum.with(*object))
}

/// What is known of an object that an earlier run proved. Its parts' hashes are gone, but ETag and part size are not.
fn record_of(head: ObjectHead, has_opaque_etags: bool) -> ObjectRecord {
    let sizes = told_part_sizes(&head.metadata).filter(|sizes| sizes.is_possible(head.size));
    let (hash, proof) = match (head.etag.as_ref().and_then(ETag::as_md5), sizes) {
        _ if head.etag_is_no_md5 || has_opaque_etags => (ContentHash::Unknown {}, Proof::ContentMd5),
        (Some(md5), _) => (ContentHash::Whole { md5 }, Proof::EtagMd5),
        (None, Some(sizes)) => (ContentHash::Parts { sizes, part_md5s: Vec::new() }, Proof::EtagComposite),
        (None, None) => (ContentHash::Unknown {}, Proof::ContentMd5),
    };
    let sha256 = head.metadata.get(SHA256).cloned();
    let ObjectHead { size, etag, version_id, .. } = head;
    ObjectRecord { size, hash, etag, version_id, sha256, proof, is_read_back: false }
}
