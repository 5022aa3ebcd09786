//! Which pods the endpoints of a slice are.

use std::iter;

/// The names of the pods that endpoints are, in their order: one text, since there are many and only people
/// ask for them. How the names of all pods begin is there once, since those of a Deployment differ in five
/// letters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Pods(Box<str>);

impl Pods {
    /// Bytes of a name (RFC 1123); what is longer is no pod's.
    const LONGEST: usize = 253;

    /// From the name of each endpoint's pod; what is none has an empty one.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let is_name = |name: &&str| name.len() <= Self::LONGEST && !name.contains('\n');
        let names: Vec<&str> =
            names.into_iter().map(|name| Some(name).filter(is_name).unwrap_or_default()).collect();
        let Some(begin) = begin_of(names.iter().copied().filter(|name| !name.is_empty())) else {
            return Self::default();
        };
        let rests = names.iter().map(|name| name.get(begin.len()..).unwrap_or_default());
        Self(iter::once(begin).chain(rests).collect::<Vec<_>>().join("\n").into())
    }

    /// The name of each endpoint's pod, as far as any has one.
    pub fn names(&self) -> impl Iterator<Item = Option<String>> {
        let mut lines = self.0.split('\n');
        let begin = lines.next().unwrap_or_default();
        lines.map(move |rest| (!rest.is_empty()).then(|| format!("{begin}{rest}")))
    }

    /// Bytes that they take.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// How all of these begin, with something left of each.
fn begin_of<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = names.next()?;
    let (last, _) = first.char_indices().next_back()?;
    let common = names.fold(&first[..last], |common, name| {
        let same = common.char_indices().zip(name.char_indices()).take_while(|(a, b)| a == b);
        let same = same.map(|((at, char), _)| at + char.len_utf8()).last().unwrap_or_default();
        // The name itself is not all of what is common, or nothing would be left of it.
        let left = name.char_indices().next_back().map_or(0, |(at, _)| at);
        &common[..same.min(left)]
    });
    Some(common)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pods_of_one_deployment_share_how_their_names_begin() {
        let names = ["x2x7k", "8rjv4", "qqd2m"].map(|it| format!("web-7c9d8f6b5-{it}"));
        let pods = Pods::new(names.iter().map(String::as_str));
        assert_eq!(pods.size(), "web-7c9d8f6b5-".len() + 3 * "\nx2x7k".len());
        assert!(pods.names().flatten().eq(names));
        assert_eq!(Pods::new(["", ""]), Pods::default());
        assert_eq!(Pods::default().names().count(), 0);
    }

    proptest! {
        #[test]
        fn names_are_as_they_were(names in proptest::collection::vec("(|web|web-[ab]{0,3}|w\u{f6}\u{f7}|w\u{f6}|.{0,4})", 0..6)) {
            let kept = |name: &String| (!name.is_empty() && !name.contains('\n')).then(|| name.clone());
            let pods = Pods::new(names.iter().map(String::as_str));
            let mut wanted: Vec<_> = names.iter().map(kept).collect();
            if wanted.iter().all(Option::is_none) {
                wanted.clear();
            }
            prop_assert_eq!(pods.names().collect::<Vec<_>>(), wanted);
        }
    }
}
