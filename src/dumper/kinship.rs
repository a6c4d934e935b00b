//! Who descends from whom.

use std::collections::HashSet;

use crate::platform::{self, Kinship};

/// A process's parent, its parent's, and so on.
pub fn ancestors(pid: i32) -> Vec<i32> {
    let mut ancestors = Vec::new();
    let mut at = pid;
    while let Some(kinship) = Kinship::of(at).filter(|kinship| kinship.parent > 0) {
        // Numbers that are used again meanwhile could make a circle.
        if ancestors.contains(&kinship.parent) {
            break;
        }
        ancestors.push(kinship.parent);
        at = kinship.parent;
    }
    ancestors
}

/// All that descend from a process, nearest first, found without a look at all other processes.
pub fn offspring(first: i32) -> Vec<i32> {
    let mut found = platform::children(first);
    let mut at = 0;
    while at < found.len() {
        let children = platform::children(found[at]);
        // Numbers that are used again meanwhile could make a circle.
        let new: Vec<i32> = children.into_iter().filter(|pid| *pid != first && !found.contains(pid)).collect();
        found.extend(new);
        at += 1;
    }
    found
}

/// A process and all that descend from it, itself first.
pub fn descendants(all: &[Kinship], first: i32) -> Vec<i32> {
    let mut members = vec![first];
    let mut known = HashSet::from([first]);
    // Children of children: until a round finds nobody new.
    loop {
        let is_new = |kinship: &&Kinship| known.contains(&kinship.parent) && !known.contains(&kinship.pid);
        let found: Vec<i32> = all.iter().filter(is_new).map(|kinship| kinship.pid).collect();
        if found.is_empty() {
            return members;
        }
        known.extend(&found);
        members.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_whatever_their_order() {
        let kin = |pid, parent| Kinship { pid, parent, session: 1, is_gone: false };
        let all = [kin(4, 3), kin(3, 2), kin(2, 1), kin(9, 1), kin(5, 2)];
        assert_eq!(descendants(&all, 2), [2, 3, 5, 4]);
    }
}
