//! Acceptance rows L40 to L47 of the behaviour specification, and what distributions write.

use std::collections::BTreeMap;

use super::*;
use crate::dataplane::sysctls::ConntrackOptions;

mod difference;
mod distributions;
mod files;
mod flags;
mod node;
mod validation;

/// Files by path, and a host named `Host-1`.
#[derive(Default)]
struct Fake(BTreeMap<PathBuf, String>);

impl Environment for Fake {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn host_name(&self) -> io::Result<String> {
        Ok(" Host-1\n".to_owned())
    }
}

fn args(line: &str) -> Args {
    Args::parse_from(std::iter::once("proxier").chain(line.split_whitespace())).unwrap()
}

/// Loads a file with this content, and these flags beside it.
fn with_file(text: &str, line: &str) -> Result<Config, ConfigError> {
    let env = Fake([("/config".into(), text.to_owned())].into());
    Config::load(&args(&format!("--config=/config {line}")), &env)
}

/// Loads a file that has this below `apiVersion` and `kind`.
fn load(body: &str) -> Result<Config, ConfigError> {
    with_file(
        &format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{body}"
        ),
        "",
    )
}

fn with_flags(line: &str) -> Result<Config, ConfigError> {
    Config::load(&args(line), &Fake::default())
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
