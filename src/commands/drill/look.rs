//! What is on a server: asked of it, some tables at a time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, TryStreamExt};

use super::server::{Server, quoted};
use crate::exit_status::Failure;
use crate::model::drill::{Expected, Found, FoundTable, Name};
use crate::model::schema_programs::ProgramKind;
use crate::model::table_shape::TableShape;
use crate::report::{Progress, Report};
use crate::sql_client::Row;

/// How long one question may take that reads whole tables.
pub const LONG: Duration = Duration::from_secs(12 * 3600);
/// Tables that are asked for at once, and questions at a time.
const TABLES_AT_ONCE: usize = 50;
const QUESTIONS_AT_ONCE: usize = 2;
/// The longest text of a question, in bytes: it is an argument of the client's (at most 128 KiB, `MAX_ARG_STRLEN`).
const QUESTION_MAX: usize = 64 * 1024;

/// Names and kinds of tables; and triggers, routines and events. Each name is known to MariaDB 10 and MySQL 5.7 and later.
const TABLES: &str = "SELECT table_schema, table_name, table_type FROM information_schema.tables";
const PROGRAMS: &str = "SELECT trigger_schema, trigger_name, 'TRIGGER' FROM information_schema.triggers \
     UNION ALL SELECT routine_schema, routine_name, routine_type FROM information_schema.routines \
     UNION ALL SELECT event_schema, event_name, 'EVENT' FROM information_schema.events";

/// Looks at all that the dump has.
pub async fn look(server: &Server, expected: &Expected, report: &Report) -> Result<Found, Failure> {
    let failed = |error: anyhow::Error| {
        let error = server.why_ended().unwrap_or(error);
        Failure::failed(error.context("what was loaded cannot be compared"))
    };
    let spelling = Spelling::of(server, expected);
    let mut found = Found::default();
    let databases = server.client().ask("SHOW DATABASES").await.map_err(failed)?;
    found.databases = databases.iter().filter_map(|row| Some(spelling.database(row.first()?.as_deref()?))).collect();
    let mut wanted = Vec::new();
    for row in server.client().ask(TABLES).await.map_err(failed)? {
        let [Some(database), Some(table), Some(kind)] = &row[..] else { continue };
        let name = spelling.name(database, table);
        match kind.contains("VIEW") {
            true if expected.views.contains(&name) || expected.tables.contains_key(&name) => {
                wanted.push(Question { name, is_view: true, with_checksum: false });
            }
            false if expected.tables.contains_key(&name) => {
                let with_checksum = expected.tables.get(&name).is_some_and(|table| table.checksum.is_some());
                wanted.push(Question { name, is_view: false, with_checksum });
            }
            false if expected.views.contains(&name) => drop(found.tables.insert(name, FoundTable::default())),
            _ => {}
        }
    }
    for row in server.client().ask(PROGRAMS).await.map_err(failed)? {
        let [Some(database), Some(name), Some(kind)] = &row[..] else { continue };
        found.programs.extend(kind_of(kind).map(|kind| (kind, (spelling.database(database), name.clone()))));
    }
    let progress = report.progress("comparing", wanted.len(), 0);
    let groups = groups(&wanted);
    let answers = futures_util::stream::iter(groups).map(|group| ask_all(server, group, &progress));
    let answers: Vec<_> = answers.buffered(QUESTIONS_AT_ONCE).try_collect().await.map_err(failed)?;
    for (question, table) in wanted.iter().zip(answers.into_iter().flatten()) {
        match question.is_view {
            true => drop(found.views.insert(question.name.clone(), table.broken)),
            false => drop(found.tables.insert(question.name.clone(), table)),
        }
    }
    Ok(found)
}

fn kind_of(kind: &str) -> Option<ProgramKind> {
    match kind {
        "TRIGGER" => Some(ProgramKind::Trigger),
        "FUNCTION" => Some(ProgramKind::Function),
        "PROCEDURE" => Some(ProgramKind::Procedure),
        "PACKAGE" => Some(ProgramKind::Package),
        "EVENT" => Some(ProgramKind::Event),
        _ => None,
    }
}

/// The dump's own spelling of names, where the server compares them without their case.
struct Spelling(HashMap<String, Name>);

impl Spelling {
    fn of(server: &Server, expected: &Expected) -> Self {
        let names = expected.tables.keys().chain(&expected.views).cloned();
        let databases = expected.databases.iter().map(|database| (database.clone(), String::new()));
        let all = names.chain(databases).filter(|_| server.ignores_case);
        Self(all.map(|name| (format!("{}\0{}", name.0, name.1).to_lowercase(), name)).collect())
    }

    fn name(&self, database: &str, table: &str) -> Name {
        let found = self.0.get(&format!("{database}\0{table}").to_lowercase());
        found.cloned().unwrap_or_else(|| (database.to_owned(), table.to_owned()))
    }

    fn database(&self, database: &str) -> String {
        self.name(database, "").0
    }
}

/// A table or view to be asked for.
#[derive(Debug, Clone)]
struct Question {
    name: Name,
    is_view: bool,
    with_checksum: bool,
}

impl Question {
    /// Statements, each behind one that says what is answered next.
    fn text(&self, number: usize) -> String {
        let name = format!("{}.{}", quoted(&self.name.0), quoted(&self.name.1));
        let mut text = String::new();
        let mut ask =
            |kind: &str, statement: String| text.push_str(&format!("SELECT {number}, '{kind}', 0; {statement};\n"));
        if !self.is_view {
            ask("shape", format!("SHOW CREATE TABLE {name}"));
            ask("rows", format!("SELECT COUNT(*) FROM {name}"));
        }
        if self.with_checksum {
            ask("checksum", format!("CHECKSUM TABLE {name}"));
        }
        ask("check", format!("CHECK TABLE {name}"));
        text
    }
}

fn groups(questions: &[Question]) -> Vec<&[Question]> {
    let mut groups = Vec::new();
    let (mut begin, mut length) = (0, 0);
    for (at, question) in questions.iter().enumerate() {
        let more = question.text(TABLES_AT_ONCE).len();
        if at > begin && (length + more > QUESTION_MAX || at - begin == TABLES_AT_ONCE) {
            groups.push(&questions[begin..at]);
            (begin, length) = (at, 0);
        }
        length += more;
    }
    groups.extend((begin < questions.len()).then(|| &questions[begin..]));
    groups
}

/// Asks for some tables at once. Where that fails each is asked for by itself, so that the error is that of a table.
async fn ask_all(server: &Server, group: &[Question], progress: &Progress) -> anyhow::Result<Vec<FoundTable>> {
    let answers = match ask(server, group).await {
        Ok(answers) => answers,
        Err(_) => {
            let mut answers = Vec::new();
            for question in group {
                let answer = ask(server, std::slice::from_ref(question)).await;
                if let Some(error) = server.why_ended() {
                    return Err(error);
                }
                answers.push(match answer {
                    Ok(one) => one.into_iter().next().unwrap_or_default(),
                    Err(error) => FoundTable { broken: Some(format!("{error:#}")), ..FoundTable::default() },
                });
            }
            // One that answers nothing at all any more is no matter of tables.
            server.client().ask("SELECT 1").await.context("the server is lost")?;
            answers
        }
    };
    progress.advance(group.len(), 0);
    Ok(answers)
}

async fn ask(server: &Server, group: &[Question]) -> anyhow::Result<Vec<FoundTable>> {
    let text: String = group.iter().enumerate().map(|(number, question)| question.text(number)).collect();
    let rows = server.client().ask_within(LONG, &text).await?;
    let mut tables: BTreeMap<usize, FoundTable> = BTreeMap::new();
    let (mut number, mut kind) = (0, String::new());
    for row in rows {
        if let [Some(next), Some(what), Some(_)] = &row[..] {
            number = next.parse().context("the answer is not understood")?;
            kind = what.clone();
            continue;
        }
        take(tables.entry(number).or_default(), &kind, &row)?;
    }
    (0..group.len()).map(|at| tables.remove(&at).ok_or_else(|| anyhow!("a table was not answered for"))).collect()
}

fn take(table: &mut FoundTable, kind: &str, row: &Row) -> anyhow::Result<()> {
    let text = |at: usize| row.get(at).and_then(Option::as_deref);
    match kind {
        "shape" => table.shape = TableShape::of(text(1).unwrap_or_default()),
        "rows" => table.rows = Some(text(0).unwrap_or_default().parse().context("rows are not understood")?),
        "checksum" => table.checksum = text(1).map(str::to_owned),
        // Table, operation, kind of message, message. Notes say what the engine does not do, warnings what it mended.
        "check" => match (text(2).unwrap_or_default(), text(3).unwrap_or_default()) {
            ("note" | "warning" | "Warning" | "Note", _) => {}
            ("status", "OK" | "Table is already up to date" | "Operation failed") => {}
            (_, message) => table.broken = Some(format!("CHECK TABLE: {message}")).or(table.broken.take()),
        },
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Row {
        cells.iter().map(|cell| Some((*cell).to_owned())).collect()
    }

    #[test]
    fn what_check_table_says_counts_where_it_is_an_error() {
        let broken = |rows: &[[&str; 4]]| {
            let mut table = FoundTable::default();
            rows.iter().for_each(|cells| take(&mut table, "check", &row(cells)).expect("taken"));
            table.broken
        };
        assert_eq!(broken(&[["s.t", "check", "status", "OK"]]), None);
        let note = ["s.t", "check", "note", "The storage engine for the table doesn't support check"];
        assert_eq!(broken(&[note]), None);
        let error = broken(&[["s.t", "check", "Error", "Index k is corrupted"], ["s.t", "check", "error", "Corrupt"]]);
        assert_eq!(error.as_deref(), Some("CHECK TABLE: Corrupt"));
        assert_eq!(broken(&[["s.t", "check", "status", "Corrupt"]]).as_deref(), Some("CHECK TABLE: Corrupt"));
    }

    #[test]
    fn questions_are_neither_too_long_nor_too_many() {
        let question =
            |name: &str| Question { name: ("shop".into(), name.into()), is_view: false, with_checksum: true };
        let short: Vec<_> = (0..120).map(|number| question(&format!("t{number}"))).collect();
        assert_eq!(groups(&short).iter().map(|group| group.len()).collect::<Vec<_>>(), [50, 50, 20]);
        let long: Vec<_> = (0..120).map(|_| question(&"`".repeat(64))).collect();
        let groups = groups(&long);
        assert_eq!(groups.iter().map(|group| group.len()).sum::<usize>(), 120);
        let text = |group: &&[Question]| group.iter().map(|question| question.text(0).len()).sum::<usize>();
        assert!(groups.iter().all(|group| text(group) <= QUESTION_MAX), "{:?}", groups.iter().map(text).max());
    }
}
