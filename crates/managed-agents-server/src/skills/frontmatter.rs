//! The head of `SKILL.md`: a name and a description between two lines of hyphens.
//!
//! ```text
//! ---
//! name: invoices
//! description: Reads invoices, and tells what is due.
//! ---
//! ```
//!
//! It is YAML, of which a text on its line, a quoted text and a folded or literal block
//! are read: what skills use. Other members are left to whoever reads the skill.

/// The text members `name` and `description`, where they are given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frontmatter {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
}

impl Frontmatter {
    /// Reads the head of `text`; `None` where it has none.
    pub(super) fn of(text: &str) -> Option<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = text.lines();
        if lines.next()?.trim_end() != "---" {
            return None;
        }
        let mut head: Vec<&str> = Vec::new();
        loop {
            match lines.next()? {
                line if line.trim_end() == "---" => break,
                line => head.push(line),
            }
        }
        Some(Self {
            name: member(&head, "name"),
            description: member(&head, "description"),
        })
    }
}

fn member(head: &[&str], name: &str) -> Option<String> {
    let at = head.iter().position(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    })?;
    let (line, below) = head.get(at..)?.split_first()?;
    let (_, value) = line.split_once(':')?;
    let indented = below
        .iter()
        .take_while(|line| line.starts_with([' ', '\t']) || line.trim().is_empty())
        .map(|line| line.trim());
    let value = match value.trim() {
        block if block.starts_with('|') => join(indented, "\n"),
        block if block.starts_with('>') => join(indented, " "),
        plain => join(std::iter::once(plain).chain(indented), " "),
    };
    let value = unquoted(value.trim());
    (!value.is_empty()).then_some(value)
}

fn join<'a>(lines: impl Iterator<Item = &'a str>, between: &str) -> String {
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(between)
}

fn unquoted(text: &str) -> String {
    let inside = |quote: char| {
        text.strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote))
    };
    if let Some(text) = inside('"') {
        return text.replace("\\\"", "\"").replace("\\\\", "\\");
    }
    if let Some(text) = inside('\'') {
        return text.replace("''", "'");
    }
    match text.split_once(" #") {
        Some((before, _)) => before.trim_end().to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, name: Option<&str>, description: Option<&str>) {
        let found = Frontmatter::of(&format!("---\n{head}\n---\n# Body\nname: other\n"));
        let expected = Frontmatter {
            name: name.map(str::to_owned),
            description: description.map(str::to_owned),
        };
        assert_eq!(found, Some(expected), "{head}");
    }

    #[test]
    fn texts_are_read_as_skills_write_them() {
        check("name: a\ndescription: b c", Some("a"), Some("b c"));
        check(
            "description: \"say \\\"x\\\": y\"\nname: 'it''s'",
            Some("it's"),
            Some("say \"x\": y"),
        );
        check(
            "name: a\ndescription: >\n  one\n  two\nlicense: MIT",
            Some("a"),
            Some("one two"),
        );
        check("description: |\n  one\n\n  two", None, Some("one\ntwo"));
        check(
            "name: a # why\ndescription:\n  below",
            Some("a"),
            Some("below"),
        );
        check("name:\nmetadata:\n  name: inner", None, None);
    }

    #[test]
    fn without_a_head_there_is_nothing() {
        for text in ["", "# Title\n", "---\nname: a\n", "----\nname: a\n---\n"] {
            assert_eq!(Frontmatter::of(text), None, "{text}");
        }
    }
}
