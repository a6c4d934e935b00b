//! What becomes of each table: a line when all of its files were handed over, and what all are together.

use std::collections::HashMap;

use tracing::debug;

use crate::retrieval::plan::Wanted;

/// The tables of the data files.
#[derive(Debug, Default)]
pub struct Tables {
    /// Of each file, its table.
    of: Vec<usize>,
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    name: String,
    files: usize,
    /// Files that were not handed over yet.
    left: usize,
    bytes: u64,
    /// As mydumper counted them.
    rows: Option<u64>,
}

impl Tables {
    /// Of these files, in the order of their numbers.
    pub fn of(data: &[&Wanted]) -> Self {
        let (mut all, mut numbers) = (Self::default(), HashMap::new());
        for wanted in data {
            let number = *numbers.entry(wanted.table()).or_insert_with_key(|name| {
                all.tables.push(Table { name: name.clone(), files: 0, left: 0, bytes: 0, rows: wanted.rows });
                all.tables.len() - 1
            });
            let table = &mut all.tables[number];
            table.files += 1;
            table.left += 1;
            table.bytes += wanted.listed.size;
            all.of.push(number);
        }
        all
    }

    /// A file was handed over.
    pub fn done(&mut self, file: usize) {
        let Some(table) = self.of.get(file).and_then(|number| self.tables.get_mut(*number)) else { return };
        table.left -= 1;
        if table.left == 0 {
            let Table { name, files, bytes, rows, .. } = table;
            debug!(table = %name, files, bytes, rows, "handed over");
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tables.len()
    }

    /// The rows of all of them, where mydumper counted them.
    pub fn rows(&self) -> Option<u64> {
        self.tables.iter().map(|table| table.rows).sum()
    }
}
