//! What each object says of itself: the names of its user metadata, and the values that are more than text.

use std::collections::HashMap;

use super::part_sizes::PartSizes;

/// Names and values, as they go with the first request of an object and come back from every look at it.
pub type UserMetadata = HashMap<String, String>;

/// Which dump an object belongs to.
pub const DUMP_ID: &str = "dump-id";
/// Why the file's content is broken. A later run finds it there when the file itself is gone.
pub const BROKEN: &str = "broken";
/// The rows in a data file, where they were counted; in the form of [`FileRows`](super::row_count::FileRows).
pub const ROWS: &str = "rows";
/// SHA-256 of the file, with `--sha256`.
pub const SHA256: &str = "sha256";
/// The file's modification time, seconds since 1970.
pub const MTIME: &str = "mtime";
/// Size of the first part, in bytes; where there is no [`MAX_PARTS`], of every part but the last.
const PART_SIZE: &str = "part-size";
/// How many parts there may be, where they grow from half of them on.
const MAX_PARTS: &str = "max-parts";

/// Writes down how an object is cut.
pub fn tell_part_sizes(metadata: &mut UserMetadata, sizes: PartSizes) {
    metadata.insert(PART_SIZE.to_owned(), sizes.first().to_string());
    if let Some(max_parts) = sizes.max_parts() {
        metadata.insert(MAX_PARTS.to_owned(), max_parts.to_string());
    }
}

/// How an object says that it was cut. Anything may stand there.
pub fn told_part_sizes(metadata: &UserMetadata) -> Option<PartSizes> {
    let part_size = metadata.get(PART_SIZE)?.parse().ok()?;
    match metadata.get(MAX_PARTS) {
        None => Some(PartSizes::equal(part_size)),
        Some(max_parts) => Some(PartSizes::growing(part_size, max_parts.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_an_object_is_cut_comes_back_as_it_was_told() {
        for sizes in [PartSizes::equal(5 << 20), PartSizes::growing(16 << 20, 10_000)] {
            let mut metadata = UserMetadata::new();
            tell_part_sizes(&mut metadata, sizes);
            assert_eq!(told_part_sizes(&metadata), Some(sizes));
        }
        let odd = |name: &str| {
            let mut metadata = UserMetadata::new();
            tell_part_sizes(&mut metadata, PartSizes::growing(5, 10));
            metadata.insert(name.to_owned(), "-1".to_owned());
            told_part_sizes(&metadata)
        };
        assert_eq!((odd(PART_SIZE), odd(MAX_PARTS)), (None, None));
    }
}
