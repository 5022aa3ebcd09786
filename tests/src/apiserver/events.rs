//! Events: created and patched, never read.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::Shared;
use super::fault::Fault;
use super::http::{Body, status, whole};

pub(super) const PATH: &str = "/apis/events.k8s.io/v1/";

/// An Event as it was created, or a patch of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Whether it was a patch.
    pub patch: bool,
    /// The path after the API group: `namespaces/dev/events`.
    pub path: String,
    /// What was sent.
    pub body: Value,
}

pub(super) async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let path = request.uri().path().trim_start_matches(PATH).to_owned();
    let patches = request.method() == Method::PATCH;
    let fault = shared.lock().faults.take("events", false, false);
    if let Some(Fault::Refuse { code, .. }) = fault {
        let reason = if code == 403 { "Forbidden" } else { "InternalError" };
        return status(code, reason, "refused on command");
    }
    let bytes = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let body: Value = serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default();
    let answer = if patches {
        let name = path.rsplit('/').next().unwrap_or_default();
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": name},
        })
    } else {
        body.clone()
    };
    shared.lock().events.push(Written { patch: patches, path, body });
    shared.wake();
    whole(if patches { 200 } else { 201 }, answer.to_string().into_bytes())
}
