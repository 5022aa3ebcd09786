//! What somebody asks about, as people type it.

use std::net::{IpAddr, SocketAddr};

use netlink_ipvs::Protocol;

use crate::cluster::ObjectKey;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A Service, or one port of it by name or number.
    Service(ObjectKey, Option<String>),
    /// An address and port of a Service or an endpoint, of one protocol or of all.
    Address(SocketAddr, Option<Protocol>),
    /// An address of a Service or an endpoint with whatever ports it has.
    Ip(IpAddr),
    /// A node port or health check node port, of one protocol or of all.
    NodePort(u16, Option<Protocol>),
}

/// The text names neither a Service, an address nor a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSubjectError {
    /// It has none of the forms.
    #[error(
        "{0:?} is neither a Service (NAME, svc/NAME, NAMESPACE/NAME, each with :PORT if wanted), an address \
         (10.96.0.10, 10.96.0.10:53/udp, [fd00::10]:80) nor a node port (30080, 30080/tcp)"
    )]
    Form(String),
    /// It names a namespace, and so does the flag.
    #[error("{0:?} names another namespace than -n {1}: leave one of them out")]
    Namespace(String, String),
}

impl Subject {
    /// The namespace of a name that says none.
    pub const NAMESPACE: &str = "default";
    /// What a name may have in front to say that it is that of a Service.
    const KINDS: [&str; 3] = ["svc", "service", "services"];

    /// Reads what was typed; a name without a namespace is in `namespace`, or in `default`.
    ///
    /// # Errors
    /// The text has none of the forms, or names another namespace than `namespace`.
    pub fn parse(text: &str, namespace: Option<&str>) -> Result<Self, ParseSubjectError> {
        let wrong = || ParseSubjectError::Form(text.to_owned());
        let (place, protocol) = match text.rsplit_once('/') {
            Some((place, "tcp")) => (place, Some(Protocol::Tcp)),
            Some((place, "udp")) => (place, Some(Protocol::Udp)),
            Some((place, "sctp")) => (place, Some(Protocol::Sctp)),
            _ => (text, None),
        };
        if let Ok(address) = place.parse() {
            return Ok(Self::Address(address, protocol));
        }
        if let Ok(port) = place.parse() {
            return Ok(Self::NodePort(port, protocol));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let (before, name) = text.split_once('/').map_or((None, text), |(a, b)| (Some(a), b));
        let written = before.filter(|before| !Self::KINDS.contains(before));
        let (name, port) = match name.split_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (name, None),
        };
        // Names of Services have no dots: this is an address with a mistake in it.
        if written == Some("") || name.is_empty() || name.contains(['/', '.', ':']) {
            return Err(wrong());
        }
        match (written, namespace) {
            (Some(written), Some(flag)) if written != flag => {
                Err(ParseSubjectError::Namespace(text.to_owned(), flag.to_owned()))
            }
            (written, flag) => {
                let namespace = written.or(flag).unwrap_or(Self::NAMESPACE);
                Ok(Self::Service(ObjectKey::new(namespace, name), port))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn service(namespace: &str, name: &str, port: Option<&str>) -> Subject {
        Subject::Service(ObjectKey::new(namespace, name), port.map(str::to_owned))
    }

    #[test]
    fn services_addresses_and_ports_are_told_apart() {
        for (text, namespace, wanted) in [
            ("web", None, service("default", "web", None)),
            ("web", Some("shop"), service("shop", "web", None)),
            ("svc/web", Some("shop"), service("shop", "web", None)),
            ("service/web:http", None, service("default", "web", Some("http"))),
            ("shop/web:80", None, service("shop", "web", Some("80"))),
            ("shop/web", Some("shop"), service("shop", "web", None)),
            ("10.96.0.1", None, Subject::Ip("10.96.0.1".parse().unwrap())),
            ("fd00::1", Some("shop"), Subject::Ip("fd00::1".parse().unwrap())),
            ("[fd00::1]:80", None, Subject::Address("[fd00::1]:80".parse().unwrap(), None)),
            (
                "10.96.0.1:53/udp",
                None,
                Subject::Address("10.96.0.1:53".parse().unwrap(), Some(Protocol::Udp)),
            ),
            ("30080", None, Subject::NodePort(30080, None)),
            ("30080/tcp", None, Subject::NodePort(30080, Some(Protocol::Tcp))),
        ] {
            assert_eq!(Subject::parse(text, namespace), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        for text in
            ["", "/web", "shop/", "a/b/c", "svc/a/b", "10.96.0.300", "shop/10.96.0.1", ":80"]
        {
            let error = Subject::parse(text, None).unwrap_err();
            assert_eq!(error, ParseSubjectError::Form(text.to_owned()));
        }
        let error = Subject::parse("shop/web", Some("other")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"shop/web\" names another namespace than -n other: leave one of them out"
        );
    }
}
