//! The SHA-256 of files, where it is asked for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// How much is read at a time.
const PIECE: usize = 256 * 1024;

/// The SHA-256 of a whole file, in hexadecimal.
pub async fn sha256(file: &Arc<File>) -> io::Result<String> {
    let file = Arc::clone(file);
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut offset = 0;
        loop {
            match file.read_at(&mut piece, offset)? {
                0 => return io::Result::Ok(hasher.finalize()),
                length => {
                    hasher.update(&piece[..length]);
                    offset += length as u64;
                }
            }
        }
    });
    let digest = hashed.await.map_err(io::Error::other)??;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
