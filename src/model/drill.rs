//! Whether what is on a server is what a dump holds: what its files and `metadata` tell, beside what the server shows.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::schema_programs::ProgramKind;
use super::table_shape::{PartKind, TableShape};

/// A database, and what lies in it.
pub type Name = (String, String);

/// What a dump holds.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its databases.
    pub databases: BTreeSet<String>,
    /// Its tables and sequences.
    pub tables: BTreeMap<Name, ExpectedTable>,
    /// Its views.
    pub views: BTreeSet<Name>,
    /// Its triggers, routines and events.
    pub programs: BTreeSet<(ProgramKind, Name)>,
}

/// A table of a dump.
#[derive(Debug, Clone, Default)]
pub struct ExpectedTable {
    /// By its schema file; `None` where that does not tell.
    pub shape: Option<TableShape>,
    /// Rows, as mydumper counted them.
    pub rows_told: Option<u64>,
    /// Rows that stand in its files, or why that cannot be told.
    pub rows_in_files: Option<Result<u64, &'static str>>,
    /// What `CHECKSUM TABLE` gave at the dump.
    pub checksum: Option<String>,
}

/// What a server shows.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its databases.
    pub databases: BTreeSet<String>,
    /// Its tables and sequences, of the databases that were asked for.
    pub tables: BTreeMap<Name, FoundTable>,
    /// Its views, with what is wrong with each, if something is.
    pub views: BTreeMap<Name, Option<String>>,
    /// Its triggers, routines and events.
    pub programs: BTreeSet<(ProgramKind, Name)>,
}

/// A table on a server.
#[derive(Debug, Clone, Default)]
pub struct FoundTable {
    /// As it shows it.
    pub shape: Option<TableShape>,
    /// Its rows; `None` where they could not be counted, which `broken` says.
    pub rows: Option<u64>,
    /// What `CHECKSUM TABLE` gives, where that was asked for.
    pub checksum: Option<String>,
    /// What `CHECK TABLE` complains of, or the error of a question.
    pub broken: Option<String>,
}

/// One kind of thing: how many there should be, and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// In the words of a table.
    pub what: &'static str,
    /// So many in the dump.
    pub expected: u64,
    /// So many of these on the server, and as they should be.
    pub right: u64,
}

/// Something that is not as the dump has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `shop.orders`, or what else it is about.
    pub name: String,
    /// How it differs.
    pub why: String,
}

/// What came of the comparison.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// All kinds, in the order in which they are told.
    pub counts: Vec<Count>,
    /// What differs.
    pub differences: Vec<Difference>,
    /// Tables of which nothing tells how many rows they had, with why.
    pub uncounted: Vec<Difference>,
}

impl Compared {
    /// Compares. What is on the server beside the dump makes no difference.
    pub fn of(expected: &Expected, found: &Found) -> Self {
        let mut compared = Self::default();
        compared.databases(expected, found);
        compared.tables(expected, found);
        compared.rows(expected, found);
        compared.checksums(expected, found);
        compared.checks(expected, found);
        for kind in PartKind::ALL {
            compared.parts(kind, expected, found);
        }
        compared.views(expected, found);
        for kind in ProgramKind::ALL {
            compared.programs(kind, expected, found);
        }
        compared.counts.retain(|count| count.expected > 0);
        compared
    }

    /// What somebody else found.
    pub fn add(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.differences.push(Difference { name: name.into(), why: why.into() });
    }

    fn count(&mut self, what: &'static str, expected: usize, right: usize) {
        self.counts.push(Count { what, expected: expected as u64, right: right as u64 });
    }

    fn databases(&mut self, expected: &Expected, found: &Found) {
        let missing: Vec<_> = expected.databases.difference(&found.databases).collect();
        missing.iter().for_each(|name| self.add(name.as_str(), "the database is missing"));
        self.count("databases", expected.databases.len(), expected.databases.len() - missing.len());
    }

    fn tables(&mut self, expected: &Expected, found: &Found) {
        let mut right = 0;
        for name in expected.tables.keys() {
            match (found.tables.contains_key(name), found.views.contains_key(name)) {
                (true, _) => right += 1,
                (false, true) => self.add(shown(name), "the table is missing: a view stands in its place"),
                (false, false) => self.add(shown(name), "the table is missing"),
            }
        }
        self.count("tables", expected.tables.len(), right);
    }

    /// Rows against each count that there is: mydumper's own, and that of the files.
    fn rows(&mut self, expected: &Expected, found: &Found) {
        let (mut total, mut there) = (0, 0);
        for (name, table) in both(expected, found) {
            let (expected, found) = table;
            let in_files = expected.rows_in_files.unwrap_or(Ok(0));
            match (expected.rows_told, in_files) {
                (None, Err(because)) => {
                    let why = format!("nothing tells how many rows it had: {because}");
                    self.uncounted.push(Difference { name: shown(name), why });
                    continue;
                }
                (told, in_files) => total += told.or(in_files.ok()).unwrap_or_default(),
            }
            let Some(rows) = found.rows else { continue };
            there += rows;
            let told = expected.rows_told.map(|told| ("mydumper counted", told));
            let in_files = in_files.ok().map(|rows| ("its files hold", rows));
            for (who, wanted) in told.into_iter().chain(in_files) {
                if wanted != rows {
                    self.add(shown(name), format!("{who} {wanted} rows, the server has {rows}"));
                }
            }
        }
        self.counts.push(Count { what: "rows", expected: total, right: there });
    }

    fn checksums(&mut self, expected: &Expected, found: &Found) {
        let (mut told, mut right) = (0, 0);
        for (name, (expected, found)) in both(expected, found) {
            let Some(sum) = &expected.checksum else { continue };
            told += 1;
            match &found.checksum {
                Some(other) if other == sum => right += 1,
                Some(other) => {
                    self.add(shown(name), format!("CHECKSUM TABLE gave {sum} at the dump, and gives {other}"))
                }
                None => self.add(shown(name), "CHECKSUM TABLE gives nothing"),
            }
        }
        self.count("checksums", told, right);
    }

    fn checks(&mut self, expected: &Expected, found: &Found) {
        let (mut checked, mut right) = (0, 0);
        for (name, (_, found)) in both(expected, found) {
            checked += 1;
            match &found.broken {
                None => right += 1,
                Some(why) => self.add(shown(name), why.clone()),
            }
        }
        self.count("tables checked", checked, right);
    }

    fn parts(&mut self, kind: PartKind, expected: &Expected, found: &Found) {
        let (mut wanted, mut right) = (0, 0);
        for (name, (expected, found)) in both(expected, found) {
            let (Some(expected), Some(found)) = (&expected.shape, &found.shape) else { continue };
            let (expected, found) = (expected.parts(kind), found.parts(kind));
            wanted += expected.len();
            right += expected.intersection(found).count();
            for part in expected.difference(found) {
                self.add(shown(name), format!("its {} '{part}' is missing", kind.as_str()));
            }
            for part in found.difference(expected) {
                self.add(
                    shown(name),
                    format!("it has {} '{part}', which its schema file has not", kind.with_article()),
                );
            }
        }
        self.count(kind.plural(), wanted, right);
    }

    fn views(&mut self, expected: &Expected, found: &Found) {
        let mut right = 0;
        for name in &expected.views {
            match found.views.get(name) {
                Some(None) => right += 1,
                Some(Some(why)) => self.add(shown(name), why.clone()),
                None if found.tables.contains_key(name) => {
                    self.add(shown(name), "the view is missing: a table stands in its place");
                }
                None => self.add(shown(name), "the view is missing"),
            }
        }
        self.count("views", expected.views.len(), right);
    }

    fn programs(&mut self, kind: ProgramKind, expected: &Expected, found: &Found) {
        let of_kind = |programs: &BTreeSet<(ProgramKind, Name)>| -> BTreeSet<Name> {
            programs.iter().filter(|(other, _)| *other == kind).map(|(_, name)| name.clone()).collect()
        };
        let (expected, found) = (of_kind(&expected.programs), of_kind(&found.programs));
        for name in expected.difference(&found) {
            self.add(shown(name), format!("the {} is missing", kind.as_str()));
        }
        self.count(kind.plural(), expected.len(), expected.intersection(&found).count());
    }
}

/// The tables that are in both, by name.
fn both<'a>(
    expected: &'a Expected,
    found: &'a Found,
) -> impl Iterator<Item = (&'a Name, (&'a ExpectedTable, &'a FoundTable))> {
    expected.tables.iter().filter_map(|(name, table)| Some((name, (table, found.tables.get(name)?))))
}

/// `shop.orders`
pub fn shown(name: &Name) -> String {
    format!("{}.{}", name.0, name.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE `t` (\n  `id` int,\n  PRIMARY KEY (`id`),\n  KEY `k` (`id`)\n)";

    fn name(name: &str) -> Name {
        ("shop".to_owned(), name.to_owned())
    }

    fn expected() -> Expected {
        let table = ExpectedTable {
            shape: TableShape::of(SCHEMA),
            rows_told: Some(5),
            rows_in_files: Some(Ok(5)),
            checksum: Some("77".to_owned()),
        };
        Expected {
            databases: BTreeSet::from(["shop".to_owned()]),
            tables: BTreeMap::from([(name("t"), table)]),
            views: BTreeSet::from([name("v")]),
            programs: BTreeSet::from([(ProgramKind::Trigger, name("on_t"))]),
        }
    }

    fn found() -> Found {
        let table =
            FoundTable { shape: TableShape::of(SCHEMA), rows: Some(5), checksum: Some("77".to_owned()), broken: None };
        Found {
            databases: BTreeSet::from(["shop".to_owned(), "mysql".to_owned()]),
            tables: BTreeMap::from([(name("t"), table)]),
            views: BTreeMap::from([(name("v"), None)]),
            programs: BTreeSet::from([(ProgramKind::Trigger, name("on_t"))]),
        }
    }

    fn differences(change: impl FnOnce(&mut Found)) -> Vec<String> {
        let mut found = found();
        change(&mut found);
        let compared = Compared::of(&expected(), &found);
        compared.differences.iter().map(|difference| format!("{}: {}", difference.name, difference.why)).collect()
    }

    fn table(found: &mut Found) -> &mut FoundTable {
        found.tables.get_mut(&name("t")).expect("the table")
    }

    #[test]
    fn what_is_as_it_should_be_does_not_differ() {
        assert_eq!(differences(|_| ()), [] as [&str; 0]);
        let compared = Compared::of(&expected(), &found());
        assert!(compared.counts.iter().all(|count| count.expected == count.right), "{:?}", compared.counts);
        assert!(compared.counts.contains(&Count { what: "rows", expected: 5, right: 5 }));
        assert!(compared.counts.iter().all(|count| count.what != "events"), "what there is none of is not told");
    }

    #[test]
    fn each_difference_is_named() {
        assert_eq!(differences(|found| found.tables.clear()), ["shop.t: the table is missing"]);
        let rows =
            ["shop.t: mydumper counted 5 rows, the server has 4", "shop.t: its files hold 5 rows, the server has 4"];
        assert_eq!(differences(|found| table(found).rows = Some(4)), rows);
        let sums = ["shop.t: CHECKSUM TABLE gave 77 at the dump, and gives 78"];
        assert_eq!(differences(|found| table(found).checksum = Some("78".to_owned())), sums);
        let broken = differences(|found| table(found).broken = Some("CHECK TABLE: Corrupt".to_owned()));
        assert_eq!(broken, ["shop.t: CHECK TABLE: Corrupt"]);
        let without_key = SCHEMA.replace(",\n  KEY `k` (`id`)", "");
        let shape = differences(|found| table(found).shape = TableShape::of(&without_key));
        assert_eq!(shape, ["shop.t: its index 'k' is missing"]);
        assert_eq!(differences(|found| found.programs.clear()), ["shop.on_t: the trigger is missing"]);
        assert_eq!(differences(|found| found.databases.clear()), ["shop: the database is missing"]);
        assert_eq!(differences(|found| found.views.clear()), ["shop.v: the view is missing"]);
        let view = differences(|found| {
            found.tables.clear();
            found.views.insert(name("t"), None);
        });
        assert_eq!(view, ["shop.t: the table is missing: a view stands in its place"]);
        let stands_in = differences(|found| {
            found.views.clear();
            found.tables.insert(name("v"), FoundTable::default());
        });
        assert_eq!(stands_in, ["shop.v: the view is missing: a table stands in its place"]);
    }

    #[test]
    fn rows_that_nobody_counted_are_said() {
        let mut expected = expected();
        let table = expected.tables.get_mut(&name("t")).expect("the table");
        (table.rows_told, table.rows_in_files) = (None, Some(Err("its lines end otherwise")));
        let compared = Compared::of(&expected, &found());
        assert_eq!((compared.differences.len(), compared.uncounted.len()), (0, 1));
        // One count is enough.
        let table = expected.tables.get_mut(&name("t")).expect("the table");
        table.rows_told = Some(6);
        assert_eq!(Compared::of(&expected, &found()).differences.len(), 1);
    }
}
