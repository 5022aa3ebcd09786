//! The text format of `iptables-save`.

use std::fmt::Write as _;

use super::spelling::usual;

/// One line that says something about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Name of the table it belongs to.
    pub(crate) table: &'a str,
    /// Name of the chain it declares or adds to.
    pub(crate) chain: &'a str,
    /// The rule without `-A CHAIN`; none for the declaration of the chain.
    pub(crate) spec: Option<&'a str>,
}

/// Chains and rules in the order in which they stand there. Comments, counters and lines that are
/// neither are passed over.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut table = "";
    text.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim_end();
            return None;
        }
        if let Some(declaration) = line.strip_prefix(':') {
            let chain = declaration.split_whitespace().next()?;
            return Some(Line { table, chain, spec: None });
        }
        // `iptables-save -c` puts `[packets:bytes] ` before each rule.
        let rule = match line.strip_prefix('[') {
            Some(counted) => counted.split_once("] ")?.1,
            None => line,
        };
        let (chain, spec) = rule.strip_prefix("-A ")?.split_once(' ').unwrap_or((&rule[3..], ""));
        Some(Line { table, chain, spec: Some(spec) })
    })
}

/// A word as iptables-save quotes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\'' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The words of a rule, without their quotes: versions of iptables differ in what they quote.
pub(crate) fn words(spec: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = false;
    let mut chars = spec.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' if !quote => out.extend(word.take()),
            '"' => {
                quote = !quote;
                word.get_or_insert_default();
            }
            '\\' if quote => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

/// A rule as iptables-save of today prints it: words with spaces or quotes are quoted, and what can be said
/// in several ways is said in one.
pub(crate) fn canonical(spec: &str) -> String {
    let mut out = String::with_capacity(spec.len());
    for word in usual(words(spec)) {
        if !out.is_empty() {
            out.push(' ');
        }
        if word.is_empty() || word.contains([' ', '"', '\'', '\\']) {
            out.push_str(&quoted(&word));
        } else {
            out.push_str(&word);
        }
    }
    out
}

/// Whether two rules are the same words.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || words(a) == words(b)
}

/// The chain or target that a rule leads to.
pub(crate) fn target(spec: &str) -> Option<String> {
    let mut words = words(spec).into_iter();
    words.find(|word| matches!(word.as_str(), "-j" | "-g"))?;
    words.next()
}

/// What to take out of one table. A chain that rules of others still refer to can only be
/// emptied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Removal {
    /// Rules to delete, as (chain, rule).
    pub(crate) rules: Vec<(String, String)>,
    /// Chains to empty.
    pub(crate) emptied: Vec<String>,
    /// Chains, all of them emptied before, to delete.
    pub(crate) deleted: Vec<String>,
}

impl Removal {
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.emptied.is_empty()
    }

    /// Appends the section of one table to the input of `iptables-restore --noflush`.
    pub(crate) fn write(&self, table: &str, out: &mut String) {
        if self.is_empty() {
            return;
        }
        let _ = writeln!(out, "*{table}");
        for chain in &self.emptied {
            let _ = writeln!(out, ":{chain} - [0:0]");
        }
        for (chain, spec) in &self.rules {
            let _ = writeln!(out, "-D {chain} {spec}");
        }
        for chain in &self.deleted {
            let _ = writeln!(out, "-X {chain}");
        }
        out.push_str("COMMIT\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_counters_do_not_matter() {
        let text = "# comment\n*nat\n:OUTPUT ACCEPT [1:2]\n[3:4] -A OUTPUT -j X\n-A X\nCOMMIT\n";
        let found: Vec<_> = lines(text).map(|l| (l.table, l.chain, l.spec)).collect();
        assert_eq!(
            found,
            [("nat", "OUTPUT", None), ("nat", "OUTPUT", Some("-j X")), ("nat", "X", Some(""))]
        );
        assert!(same("--comment word -j X", "--comment \"word\"  -j X"));
        assert!(!same("--comment \"a b\"", "--comment a b"));
        assert_eq!(words(&quoted("it's \"\\")), ["it's \"\\"]);
        assert_eq!(quoted("'hash ip:port'"), r#""\'hash ip:port\'""#);
    }

    #[test]
    fn a_comment_is_not_a_target() {
        assert_eq!(target("-m comment --comment \"-j X\" -g Y").as_deref(), Some("Y"));
        assert_eq!(target("-s 1.2.3.4/32"), None);
    }
}
