//! What schema files make beside tables: triggers, routines and events by their names, and who defines them.
//!
//! Every mydumper from 0.10.1 to 1.0.1 writes a line of `SET` or `DROP … IF EXISTS` before each `CREATE`, and the server's
//! own `CREATE DEFINER=…` on a line of its own. Bodies may hold anything; hardly one holds both.

use std::collections::BTreeSet;

use super::schema_name::until_quote;

/// A program in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProgramKind {
    Trigger,
    Function,
    Procedure,
    /// MariaDB's, in Oracle's manner.
    Package,
    Event,
}

impl ProgramKind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 5] = [Self::Trigger, Self::Function, Self::Procedure, Self::Package, Self::Event];

    /// In the words of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Function => "function",
            Self::Procedure => "procedure",
            Self::Package => "package",
            Self::Event => "event",
        }
    }

    /// More of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Trigger => "triggers",
            Self::Function => "functions",
            Self::Procedure => "procedures",
            Self::Package => "packages",
            Self::Event => "events",
        }
    }
}

/// What a file makes, in its order.
pub fn programs(text: &str) -> Vec<(ProgramKind, String)> {
    let mut made = Vec::new();
    let mut before = "";
    for line in text.lines() {
        let is_begin =
            before.is_empty() || ["SET ", "DROP ", "/*!", "DELIMITER"].iter().any(|word| before.starts_with(word));
        if is_begin && line.starts_with("CREATE ") {
            made.extend(program(line));
        }
        before = line;
    }
    made
}

/// What a `CREATE` makes, if that is a program.
fn program(line: &str) -> Option<(ProgramKind, String)> {
    let mut rest = line.strip_prefix("CREATE ")?;
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(definer) = rest.strip_prefix("DEFINER=") {
            rest = account(definer)?.1;
            continue;
        }
        let (word, behind) = rest.split_once(' ')?;
        rest = behind;
        match word {
            "OR" | "REPLACE" | "AGGREGATE" => {}
            "TRIGGER" => return Some((ProgramKind::Trigger, name(rest)?)),
            "EVENT" => return Some((ProgramKind::Event, name(rest)?)),
            "FUNCTION" => return Some((ProgramKind::Function, name(rest)?)),
            "PROCEDURE" => return Some((ProgramKind::Procedure, name(rest)?)),
            // What a package's body makes has its name already.
            "PACKAGE" if !rest.starts_with("BODY ") => return Some((ProgramKind::Package, name(rest)?)),
            _ => return None,
        }
    }
}

/// The name that follows: in quotes or without, maybe behind that of its database, maybe behind `IF NOT EXISTS`.
fn name(text: &str) -> Option<String> {
    let text = text.trim_start_matches(' ');
    let text = text.strip_prefix("IF NOT EXISTS ").unwrap_or(text);
    let (name, rest) = identifier(text)?;
    match rest.trim_start_matches(' ').strip_prefix('.') {
        Some(qualified) => Some(identifier(qualified.trim_start_matches(' '))?.0),
        None => Some(name),
    }
}

fn identifier(text: &str) -> Option<(String, &str)> {
    match text.chars().next()? {
        quote @ ('`' | '"') => until_quote(&text[1..], quote),
        _ => {
            let end = text.find(|letter: char| letter.is_whitespace() || matches!(letter, '.' | '(' | '`' | '"'));
            let (name, rest) = text.split_at(end.unwrap_or(text.len()));
            (!name.is_empty()).then(|| (name.to_owned(), rest))
        }
    }
}

/// A user and a host, either maybe empty.
pub type Account = (String, String);

/// Who defines the views and programs of a file. A role has no host.
pub fn definers(text: &str) -> BTreeSet<Account> {
    let lines = text.lines().filter(|line| line.starts_with("CREATE ") || line.starts_with("/*!"));
    lines.filter_map(|line| Some(account(line.split_once("DEFINER=")?.1)?.0)).collect()
}

fn account(text: &str) -> Option<(Account, &str)> {
    let (user, rest) = identifier(text)?;
    match rest.strip_prefix('@') {
        Some(host) => {
            let (host, rest) = identifier(host)?;
            Some(((user, host), rest))
        }
        None => Some(((user, String::new()), rest)),
    }
}

/// The newest version of a server that a `/*!80016 … */` or `/*M!100301 … */` of a file is meant for, like 80016: a server
/// before it passes over that. And whether MariaDB alone is meant.
pub fn newest_version(text: &str) -> Option<u32> {
    let comments = text.match_indices("/*").filter_map(|(at, _)| {
        let rest = &text[at + 2..];
        let rest = rest.strip_prefix("M!").or_else(|| rest.strip_prefix('!'))?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if matches!(digits, 5 | 6) { rest[..digits].parse().ok() } else { None }
    });
    comments.max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POST: &str = "SET collation_connection = utf8mb3_general_ci;\n\
        DROP FUNCTION IF EXISTS `doubled`;\n\
        CREATE DEFINER=`boss`@`%` FUNCTION `doubled`(n INT) RETURNS int(11)\n    DETERMINISTIC\n\
        BEGIN\nCREATE TABLE x (id INT);\nCREATE DEFINER=`a`@`b` TRIGGER `none` AFTER;\nEND;\n\
        SET character_set_client = @PREV_CHARACTER_SET_CLIENT;\n\
        CREATE DEFINER=`root`@`localhost` TRIGGER t2 BEFORE UPDATE ON orders FOR EACH ROW SET NEW.k = 1;\n\
        SET x = 1;\nCREATE DEFINER=`gone``y`@`10.%` EVENT `nightly` ON SCHEDULE EVERY 1 DAY DO DELETE FROM `a.b`;\n\
        SET x = 1;\nCREATE DEFINER=`admins` PROCEDURE `shop`.`forget`()\nDELETE FROM `a.b`;\n";

    #[test]
    fn programs_are_found_and_bodies_are_not() {
        let made = programs(POST);
        let made: Vec<_> = made.iter().map(|(kind, name)| (kind.as_str(), name.as_str())).collect();
        assert_eq!(made, [("function", "doubled"), ("trigger", "t2"), ("event", "nightly"), ("procedure", "forget")]);
        assert_eq!(programs("CREATE VIEW `v` AS select 1;\n"), []);
    }

    #[test]
    fn definers_are_accounts_and_roles() {
        let found = definers(&format!(
            "{POST}CREATE ALGORITHM=UNDEFINED DEFINER=`v`@`%` SQL SECURITY DEFINER VIEW `cheap` AS select 1;\n"
        ));
        let found: Vec<_> = found.iter().map(|(user, host)| (user.as_str(), host.as_str())).collect();
        let wanted = [("a", "b"), ("admins", ""), ("boss", "%"), ("gone`y", "10.%"), ("root", "localhost"), ("v", "%")];
        assert_eq!(found, wanted);
    }

    #[test]
    fn versions_are_those_of_comments() {
        assert_eq!(
            newest_version("/*!40101 SET x*/;\nCREATE DATABASE `x` /*!80016 DEFAULT ENCRYPTION='N' */;"),
            Some(80016)
        );
        assert_eq!(newest_version("/*M!100301 x*/ /*!999 */ /* 80016 */"), Some(100301));
        assert_eq!(newest_version("nothing"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(CREATE |DEFINER=|TRIGGER |SET |`|\"|@|\\.|\\n|/\\*!|ä|12345)*") {
            programs(&text);
            definers(&text);
            newest_version(&text);
        }
    }
}
