//! A host of nothing but files, for tests.

use std::fs;
use std::path::PathBuf;

/// A root with these files, gone when dropped.
pub(super) struct Root(pub(super) PathBuf);

impl Root {
    pub(super) fn with(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("proxier-host-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            let folder = path.parent().map(fs::create_dir_all);
            assert!(folder.is_some_and(|made| made.is_ok()), "{}", path.display());
            assert!(fs::write(&path, text).is_ok(), "{}", path.display());
        }
        Self(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
