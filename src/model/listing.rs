//! The names that one look at the directory found.

use super::file_name::{BadName, FileName};

/// Names and inode numbers, in no order. In two blocks of memory whatever their number: a look that finds a hundred
/// thousand files that are done must cost next to nothing.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    names: String,
    /// Where each name ends, and its inode number.
    entries: Vec<(usize, u64)>,
}

impl Listing {
    /// Adds a name, if it can be one of a file of the dump, with the inode number that the directory gives it: files
    /// that are done need no stat.
    pub fn push(&mut self, name: &str, inode: u64) -> Result<(), BadName> {
        FileName::check(name)?;
        self.names.push_str(name);
        self.entries.push((self.names.len(), inode));
        Ok(())
    }

    /// The names, each with its inode number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut start = 0;
        self.entries.iter().map(move |(end, inode)| (&self.names[std::mem::replace(&mut start, *end)..*end], *inode))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Those for which `is_wanted` holds.
    pub fn filtered(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut filtered = Self::default();
        for (name, inode) in self.iter().filter(|(name, _)| is_wanted(name)) {
            filtered.names.push_str(name);
            filtered.entries.push((filtered.names.len(), inode));
        }
        filtered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_they_went_in() {
        let mut listing = Listing::default();
        assert!(listing.is_empty());
        for (inode, name) in (1..).zip(["a.sql", "Größe.sql", "metadata"]) {
            listing.push(name, inode).expect("a name");
        }
        assert_eq!(listing.push("a\nb", 4), Err(BadName::ControlCharacter));
        assert_eq!(listing.iter().collect::<Vec<_>>(), [("a.sql", 1), ("Größe.sql", 2), ("metadata", 3)]);
        let others = listing.filtered(|name| name != "Größe.sql");
        assert_eq!(others.iter().collect::<Vec<_>>(), [("a.sql", 1), ("metadata", 3)]);
        assert_eq!((listing.len(), others.len()), (3, 2));
    }
}
