//! The configuration object of a run: the file's, or the flags', with defaults.

use std::path::Path;

use super::file::KubeProxyConfiguration;
use super::{ConfigError, Environment, decode, defaults, flags};
use crate::args::Args;

/// Puts the object together, not yet validated.
pub(super) fn assemble(
    args: &Args,
    env: &impl Environment,
    warnings: &mut Vec<String>,
) -> Result<KubeProxyConfiguration, ConfigError> {
    let mut object = match &args.always.config {
        Some(path) => from_file(path, env, warnings)?,
        None => flags::object(&args.without_config),
    };
    if args.always.config.is_some() && !args.ignored_with_config.is_empty() {
        let flags: Vec<_> =
            args.ignored_with_config.iter().map(|flag| format!("--{flag}")).collect();
        warnings.push(format!(
            "ignored, because --config is given and the file decides: {}",
            flags.join(", ")
        ));
    }
    flags::always(&args.always, &mut object)?;
    Ok(object)
}

fn from_file(
    path: &Path,
    env: &impl Environment,
    warnings: &mut Vec<String>,
) -> Result<KubeProxyConfiguration, ConfigError> {
    let text =
        env.read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let decoded = decode::decode(&text)
        .map_err(|problems| ConfigError::Decode { path: path.to_owned(), problems })?;
    if !decoded.warnings.is_empty() {
        warnings.push(format!(
            "Using lenient decoding as strict decoding failed: {}: {}",
            path.display(),
            decoded.warnings.join(", ")
        ));
    }
    if decoded.followed {
        warnings.push(format!(
            "{} has several documents: the first one is used, as kube-proxy does; put the others \
             into files of their own",
            path.display()
        ));
    }
    let mut object = decoded.object;
    defaults::apply(&mut object);
    Ok(object)
}
