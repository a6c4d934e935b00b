//! Files that went up, and were removed here, before anybody doubted them, or whose first bytes an earlier run gave back:
//! they are read in the bucket, as a stream, so that the dump is proved as a whole or not at all.

use std::io;

use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{info, warn};

use super::session::Session;
use crate::fetch::{FetchError, Taker, fetch};
use crate::model::content_check::ContentCheck;
use crate::model::content_hash::{Agreement, ContentHasher};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_kind::{FileKind, KnownNames, NameParts};
use crate::model::file_name::FileName;
use crate::model::manifest::ObjectRecord;
use crate::model::units::ByteSize;
use crate::s3::{ObjectRef, StoreError};

impl Session<'_> {
    /// Looks in the bucket at the content of files that nobody saw as a whole: what an earlier run gave back of them was
    /// there alone. And counts the rows of all data files that nobody counted, where only that proves the dump.
    pub(super) async fn count_in_the_bucket(&self, metadata: &DumpMetadata) -> Result<(), StoreError> {
        let transfer = &self.shared.transfer;
        let is_in_doubt = self.full_disk().is_some() && !transfer.looks.survives_full_disk;
        let counts = is_in_doubt && metadata.tables.iter().any(|table| table.rows.is_some());
        if self.args.destination.write_only {
            return Ok(());
        }
        let unseen = transfer.disposal.recorder.unseen();
        let uncounted: Vec<(FileName, ObjectRecord)> = {
            let state = self.shared.state();
            let is_uncounted =
                |name: &FileName, rows: bool| unseen.contains(name) || (counts && !rows && is_data(name));
            let uncounted = state.uploaded().filter(|(name, uploaded)| is_uncounted(name, uploaded.rows.is_some()));
            uncounted.map(|(name, uploaded)| (name.clone(), uploaded.object.clone())).collect()
        };
        if uncounted.is_empty() {
            return Ok(());
        }
        let bytes = ByteSize(uncounted.iter().map(|(_, object)| object.size).sum()).human();
        let before = if is_in_doubt { "the disk was full" } else { "all of them could be looked at" };
        info!("{} files ({bytes}) went up before {before}: they are read in the bucket", uncounted.len());
        stream::iter(uncounted)
            .map(Ok)
            .try_for_each_concurrent(transfer.writer.gate.width(), |(name, object)| async move {
                self.count(&name, &object).await
            })
            .await
    }

    async fn count(&self, name: &FileName, object: &ObjectRecord) -> Result<(), StoreError> {
        let key = format!("{}{name}", self.shared.transfer.writer.prefix.directory());
        let there = ObjectRef { key, size: object.size, etag: object.etag.clone() };
        let Some(check) = ContentCheck::of(name.as_str()) else { return Ok(()) };
        let counting = Counting { check, hasher: ContentHasher::like(&object.hash, false) };
        // What of it is not known is not taken for right.
        let must_be_seen = self.shared.transfer.disposal.recorder.unseen().contains(name);
        let why = match fetch(&self.store, &there, 0..object.size, counting, |_| {}).await {
            Ok(Counting { check, hasher }) => match hasher.finish().agrees_with(&object.hash, None, None) {
                // Over http nothing else would notice.
                Agreement::Different => "its bytes were damaged on their way".to_owned(),
                _ => {
                    let content = check.finish();
                    let rows = content.as_ref().ok().and_then(|content| content.rows);
                    if content.is_ok() {
                        self.shared.transfer.disposal.recorder.end_only_copy(name);
                    }
                    self.shared.state().learn(name, rows, content.err().map(String::into_boxed_str));
                    return Ok(());
                }
            },
            Err(FetchError::Store(error)) if error.is_outage() => return Err(error),
            Err(FetchError::Store(error)) => error.to_string(),
            Err(FetchError::Local(error)) => error.to_string(),
        };
        warn!(file = %name, "its content cannot be looked at in the bucket: {why}");
        if must_be_seen {
            let why = format!("an earlier run gave some of it back, and it cannot be looked at in the bucket: {why}");
            self.shared.state().learn(name, None, Some(why.into_boxed_str()));
        }
        Ok(())
    }
}

fn is_data(name: &FileName) -> bool {
    let parts = NameParts::parse(name.as_str(), &KnownNames::default());
    matches!(parts.kind, FileKind::Data | FileKind::DataText)
}

struct Counting {
    check: ContentCheck,
    hasher: ContentHasher,
}

impl Taker for Counting {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.check.update(bytes);
        Ok(())
    }
}
