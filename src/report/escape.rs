//! Names come from strangers: nothing in one may look like a line of ours or drive the terminal.

use std::borrow::Cow;

/// Newlines, escape sequences and what turns the direction of text become visible: `\n`, `\u{1b}`, `\u{202e}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unprintable(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped.into()
}

/// A value in `name=value`: in quotes where it would not be one word otherwise.
pub fn escape_value(text: &str) -> Cow<'_, str> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\')) {
        format!("\"{}\"", escape(&text.replace('\\', "\\\\").replace('"', "\\\""))).into()
    } else {
        escape(text)
    }
}

fn is_unprintable(c: char) -> bool {
    // Line and paragraph separator, marks and overrides of the direction: what "Trojan Source" uses.
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_forge_a_line_becomes_visible() {
        assert_eq!(escape("db.täble 1.sql"), "db.täble 1.sql");
        assert_eq!(escape("a\nERROR b"), "a\\nERROR b");
        assert_eq!(escape("\x1b[2Jx\r"), "\\u{1b}[2Jx\\r");
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn values_are_one_word() {
        assert_eq!(escape_value("db.t.sql"), "db.t.sql");
        assert_eq!(escape_value(""), r#""""#);
        assert_eq!(escape_value("a b"), r#""a b""#);
        assert_eq!(escape_value(r#"a"b\"#), r#""a\"b\\""#);
        assert_eq!(escape_value("a\nlevel=ERROR"), r#""a\nlevel=ERROR""#);
    }

    proptest! {
        #[test]
        fn nothing_escaped_holds_a_control_character(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(char::is_control));
            prop_assert!(!escape_value(&text).contains(char::is_control));
        }
    }
}
