//! Certificates of a test's own authorities, and TLS with them.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// An authority that signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    /// Its own certificate, as PEM.
    pub pem: String,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, as a server sees it.
    pub der: Vec<u8>,
    /// The certificate, as PEM.
    pub pem: String,
    /// The key, as PEM.
    pub key: String,
    key_der: Vec<u8>,
}

impl Authority {
    /// A new one, whom nobody knows yet.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        Ok(Self { issuer: Issuer::new(params, key), der, pem })
    }

    /// A certificate for a client of this name.
    ///
    /// # Errors
    /// No key can be made.
    pub fn client(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A certificate for a server at 127.0.0.1.
    fn server(&self) -> Result<Identity> {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
            key: key.serialize_pem(),
            key_der: key.serialize_der(),
        })
    }
}

/// A server with a new certificate of `own` that accepts only clients of `clients`.
pub(super) fn server(own: &Authority, clients: &Authority) -> Result<Arc<ServerConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der.clone().into())?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let Identity { der, key_der, .. } = own.server()?;
    let key = PrivateKeyDer::try_from(key_der).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    Ok(Arc::new(config.with_single_cert(vec![der.into()], key)?))
}
