//! Multipart uploads that nobody ended: continued or aborted where an earlier run of ours began them, and left alone
//! otherwise. Their user metadata, their key and their access list are of whoever began them, and no listing shows them;
//! so only an id that is written down beside the dump makes one ours.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::{Begun, ObjectWriter};
use crate::aside::aside;
use crate::model::file_kind::could_be_dump_file;
use crate::recorder::Recorder;
use crate::s3::{ErrorKind, ListedUpload, OpenUpload};

/// Multipart uploads that have not ended.
#[derive(Debug)]
pub struct Uploads {
    /// Begun here.
    open: Mutex<HashSet<OpenUpload>>,
    /// Of this dump's files, begun by an earlier run: continued, or aborted in the end.
    left: Mutex<Vec<OpenUpload>>,
    /// Remembers which are ours.
    recorder: Arc<Recorder>,
}

impl Uploads {
    /// None yet.
    pub fn new(recorder: Arc<Recorder>) -> Self {
        Self { open: Mutex::default(), left: Mutex::default(), recorder }
    }
}

impl ObjectWriter {
    /// Looks for uploads that an earlier run began and did not end. Returns how many others there are of names like
    /// those of a dump.
    pub async fn find_left_uploads(&self) -> usize {
        if self.write_only {
            return 0;
        }
        let directory = self.prefix.directory();
        // Only keys directly under the prefix can be ours, and in the bucket's root not all of these.
        let could_be_ours = |listed: &ListedUpload| {
            let name = listed.upload.key.strip_prefix(&directory);
            name.is_some_and(|name| !name.contains('/') && could_be_dump_file(name))
        };
        let listed = match self.store.open_uploads(&directory, could_be_ours).await {
            Ok(listed) => listed,
            Err(error) if error.kind == ErrorKind::TooLarge => {
                warn!("what an earlier run began and did not end is not looked for, and is sent anew: {error}");
                return 0;
            }
            // Said once, when the rights were tried.
            Err(error) => {
                debug!("{error}");
                return 0;
            }
        };
        let (ours, others): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .map(|listed| listed.upload)
            .partition(|upload| self.uploads.recorder.has_upload(upload.mark()));
        *self.uploads.left.lock() = ours;
        others.len()
    }

    /// An upload of this key that an earlier run left behind.
    pub(super) fn take_left(&self, key: &str) -> Option<OpenUpload> {
        let mut left = self.uploads.left.lock();
        let at = left.iter().position(|upload| upload.key == key)?;
        Some(left.swap_remove(at))
    }

    /// Whether an upload may hold the only copy of some bytes.
    pub fn is_only_copy(&self, begun: &Begun) -> bool {
        self.uploads.recorder.is_only_copy(begun.mark())
    }

    pub(super) async fn remember(&self, upload: OpenUpload) {
        let (recorder, mark) = (Arc::clone(&self.uploads.recorder), upload.mark());
        aside(move || recorder.begin_upload(mark)).await;
        self.uploads.open.lock().insert(upload);
    }

    pub(super) fn forget(&self, upload: &OpenUpload) {
        self.uploads.recorder.end_upload(upload.mark());
        self.leave(upload);
    }

    /// It seems to have ended; if it is found all the same, it is ours.
    pub(super) fn leave(&self, upload: &OpenUpload) {
        self.uploads.open.lock().remove(upload);
    }

    /// Gives an upload up. Its parts cost storage until then, but nothing is lost with them: a failure is only noted, and
    /// the next run tries again.
    /// One that may hold the only copy of some bytes is never given up.
    pub(super) async fn abort(&self, upload: OpenUpload) {
        if self.uploads.recorder.is_only_copy(upload.mark()) {
            return self.leave(&upload);
        }
        if !self.write_only
            && let Err(error) = self.store.abort_upload(&upload).await
        {
            debug!("{error}");
            return self.leave(&upload);
        }
        self.forget(&upload);
    }

    /// Aborts all that was begun and not ended: for an orderly stop.
    pub async fn abort_all(&self) {
        let open: Vec<_> = self.uploads.open.lock().iter().cloned().collect();
        for upload in open {
            self.abort(upload).await;
        }
    }

    /// Aborts what an earlier run began and this one had no use for.
    pub async fn abort_left(&self) {
        let left = std::mem::take(&mut *self.uploads.left.lock());
        for upload in left {
            info!("aborting an unfinished upload of {}", self.store.uri(&upload.key));
            self.abort(upload).await;
        }
    }

    /// The same at the end of a dump. What may be somebody else's is named.
    pub async fn abort_left_and_name_others(&self) {
        let others = self.find_left_uploads().await;
        self.abort_left().await;
        if others > 0 {
            let uri = self.store.uri(&self.prefix.directory());
            warn!(
                "{uri} has unfinished uploads that are not known to be of this dump ({others}): they are another program's, \
                 or of a request whose answer was lost, and are left alone; a lifecycle rule removes them"
            );
        }
    }
}
