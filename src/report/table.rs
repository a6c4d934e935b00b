//! Data in columns, for stdout.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement};

use super::escape::escape;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a header, each column as wide as its widest cell is on a terminal.
///
/// Nothing is cut: who reads with `awk` or `grep` wants whole names.
#[derive(Clone, Debug)]
pub struct Table {
    grid: comfy_table::Table,
    alignments: Vec<Align>,
}

impl Table {
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Self {
        let (names, alignments): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let mut grid = comfy_table::Table::new();
        grid.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(names.iter().zip(&alignments).map(|(name, align)| cell(name, *align)));
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { grid, alignments }
    }

    /// Missing cells are empty, and those beyond the last column are left away.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let cells = cells.into_iter().zip(&self.alignments);
        let cells: Vec<_> = cells.map(|(text, align)| cell(&escape(text.as_ref()), *align)).collect();
        self.grid.add_row(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.grid.row_count() == 0
    }

    /// Header and rows. Nothing at all where there is no row.
    pub fn render(&self) -> String {
        if self.is_empty() { String::new() } else { self.grid.trim_fmt() + "\n" }
    }
}

fn cell(text: &str, align: Align) -> Cell {
    Cell::new(text).set_alignment(match align {
        Align::Left => CellAlignment::Left,
        Align::Right => CellAlignment::Right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("FILE", Align::Left), ("SIZE", Align::Right), ("VERDICT", Align::Left)]);
        table.row(["db.täble.sql", "1.4 GiB", "mismatch"]);
        table.row(["a", "12 B", "missing"]);
        table.row(["b"]);
        assert_eq!(
            table.render(),
            "FILE             SIZE  VERDICT\n\
             db.täble.sql  1.4 GiB  mismatch\n\
             a                12 B  missing\n\
             b\n"
        );
    }

    #[test]
    fn what_is_two_columns_wide_counts_twice() {
        let mut table = Table::new([("DATABASE", Align::Left), ("SIZE", Align::Right)]);
        table.row(["商店订单", "12 B"]);
        table.row(["shop", "1.4 GiB"]);
        assert_eq!(table.render(), "DATABASE     SIZE\n商店订单     12 B\nshop      1.4 GiB\n");
    }

    #[test]
    fn no_row_is_no_table() {
        assert_eq!(Table::new([("FILE", Align::Left)]).render(), "");
    }

    #[test]
    fn a_name_cannot_make_a_row() {
        let mut table = Table::new([("FILE", Align::Left)]);
        table.row(["x\nok.sql"]);
        assert_eq!(table.render(), "FILE\nx\\nok.sql\n");
    }
}
