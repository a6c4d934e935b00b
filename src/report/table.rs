//! Data in columns, for stdout.

use super::escape::escape;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a header, each column as wide as its widest cell.
///
/// Nothing is cut: who reads with `awk` or `grep` wants whole names.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Self {
        let columns = columns.into_iter().map(|(name, align)| (name.to_owned(), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Missing cells are empty, and those beyond the last column are left away.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| escape(cell.as_ref()).into_owned()).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Header and rows. Nothing at all where there is no row.
    pub fn render(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let header: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| lines().map(|cells| cells[at].chars().count()).max().unwrap_or_default())
            .collect();
        let mut text = String::new();
        for cells in lines() {
            let padded: Vec<String> = cells
                .iter()
                .zip(&self.columns)
                .zip(&widths)
                .map(|((cell, (_, align)), width)| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
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
