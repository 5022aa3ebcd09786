//! What `nft list` prints, so that it can be compared.

use std::collections::BTreeMap;

/// The lines of a listing, elements in order and one a line, without how long they still stay: nft prints
/// them as the kernel has them. Empty lines, which only separate, are left out.
pub fn lines(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut elements: Option<Vec<String>> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (line, begins) = match line.split_once("elements = { ") {
            Some((_, rest)) => (rest, true),
            None => (line, false),
        };
        if begins {
            elements = Some(Vec::new());
        }
        let Some(list) = &mut elements else {
            out.push(line.to_owned());
            continue;
        };
        let (some, ends) = line.strip_suffix('}').map_or((line, false), |some| (some, true));
        let some = some.split(',').map(|each| lasting(each.trim()));
        list.extend(some.filter(|each| !each.is_empty()));
        if ends {
            list.sort_unstable();
            out.append(list);
            elements = None;
        }
    }
    out
}

/// An element without how long it still stays.
fn lasting(element: &str) -> String {
    let Some((before, after)) = element.split_once(" expires ") else { return element.to_owned() };
    let rest = after.split_once(' ').map(|(_, rest)| format!(" {rest}"));
    before.to_owned() + &rest.unwrap_or_default()
}

/// A listing by table and then set or chain: a set that was made anew is listed last. The order within
/// each counts, but for elements.
pub fn blocks(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut table, mut block) = (String::new(), String::new());
    for line in lines(text) {
        if line.starts_with("table ") {
            table.clone_from(&line);
            block.clone_from(&line);
        } else if line.starts_with("\tset ")
            || line.starts_with("\tmap ")
            || line.starts_with("\tchain ")
        {
            block = format!("{table}{line}");
        }
        out.entry(block.clone()).or_default().push(line);
    }
    out
}
