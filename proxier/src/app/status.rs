//! `proxier status`: what the running proxy of this node knows, asked over its local HTTP endpoint.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::config::Config;

/// How long the running proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints what `/statusz` of the metrics address says.
pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let mut address = config.metrics_bind;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("no proxy answers on {address} (--metrics-bind-address)"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /statusz HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read the answer of {address}"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("what answers on {address} does not speak HTTP");
    };
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("{address} answers {status}");
    }
    super::print(body)?;
    Ok(ExitCode::SUCCESS)
}
