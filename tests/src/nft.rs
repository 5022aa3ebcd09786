//! What `nft list` prints, so that it can be compared.

/// The lines of a listing, elements in order and one a line: nft prints them as the kernel has them.
/// Empty lines, which only separate, are left out.
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
        let some = some.split(',').map(|each| each.trim().to_owned());
        list.extend(some.filter(|each| !each.is_empty()));
        if ends {
            list.sort_unstable();
            out.append(list);
            elements = None;
        }
    }
    out
}
