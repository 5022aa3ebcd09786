//! Requests and answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::events;
use super::fault::Fault;
use super::store::{Selector, Stored, line, metadata_of};
use super::stream::{self, Broken, Piece};
use super::{Recorded, Shared};

pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Broken>;

/// Accepts until it is aborted; its connections end with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Events are small, and a watch must not wait for the next one to fill a segment.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let tls = shared.lock().tls.clone();
        connections.spawn(async move {
            let Some(tls) = tls else { return talk(stream, None, shared).await };
            // Who is not accepted is told by the handshake.
            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let certificate = certificates.first().map(|der| der.to_vec());
                talk(stream, certificate, shared).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers on one connection.
async fn talk<S>(stream: S, certificate: Option<Vec<u8>>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let (shared, certificate) = (Arc::clone(&shared), certificate.clone());
        async move { Ok::<_, Infallible>(answer(request, certificate, &shared).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) resource: String,
    pub(super) streaming: bool,
    pub(super) bookmarks: bool,
    pub(super) version: String,
    /// Nothing but metadata is asked for.
    pub(super) metadata: bool,
    pub(super) selector: Selector,
    limit: Option<usize>,
    next: String,
    timeout: Option<u64>,
}

async fn answer(
    request: Request<Incoming>,
    certificate: Option<Vec<u8>>,
    shared: &Arc<Shared>,
) -> Response<Body> {
    if request.uri().path().starts_with(events::PATH) {
        return events::answer(request, shared).await;
    }
    let parameters = parameters(request.uri().query().unwrap_or_default());
    let resource = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let get = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let watch = get("watch") == "true";
    let query = Query {
        streaming: watch && get("sendInitialEvents") == "true",
        bookmarks: get("allowWatchBookmarks") == "true",
        version: get("resourceVersion"),
        metadata: request
            .headers()
            .get_all(ACCEPT)
            .iter()
            .any(|it| it.to_str().is_ok_and(|it| it.contains("as=PartialObjectMetadata"))),
        selector: Selector { labels: get("labelSelector"), fields: get("fieldSelector") },
        limit: get("limit").parse().ok().filter(|limit| *limit > 0),
        next: get("continue"),
        timeout: get("timeoutSeconds").parse().ok(),
        resource: resource.clone(),
    };
    let fault = {
        let mut state = shared.lock();
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let resource = resource.clone();
        let recorded = Recorded {
            resource,
            watch,
            metadata: query.metadata,
            query: parameters,
            authorization,
            certificate,
        };
        state.requests.push(recorded);
        state.faults.take(&query.resource, watch, query.streaming)
    };
    match &fault {
        Some(Fault::Refuse { code, retry_after }) => {
            let mut response = status(*code, "InternalError", "refused on command");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, (*seconds).into());
            }
            return response;
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Body(text)) => return whole(200, text.clone().into_bytes()),
        _ => {}
    }
    if !["services", "endpointslices", "nodes"].contains(&resource.as_str()) {
        return status(404, "NotFound", "the server could not find the requested resource");
    }
    if watch { watch_answer(&query, fault, shared) } else { list_answer(&query, fault, shared) }
}

fn watch_answer(query: &Query, fault: Option<Fault>, shared: &Arc<Shared>) -> Response<Body> {
    if query.streaming && !query.bookmarks {
        return status(422, "Invalid", "sendInitialEvents needs allowWatchBookmarks");
    }
    let after = query.version.parse().unwrap_or(0);
    if !query.streaming && shared.lock().store.is_compacted(after) {
        // As kube-apiserver: the watch is accepted, and the error is its first event.
        let error = status_object(410, "Expired", "too old resource version");
        return whole(200, line("ERROR", &error).into_bytes());
    }
    let pieces = stream::watch(query.clone(), fault, Arc::clone(shared), after);
    let body = streamed(stream::limited(pieces, query.timeout));
    respond(200, body)
}

fn list_answer(query: &Query, fault: Option<Fault>, shared: &Arc<Shared>) -> Response<Body> {
    let state = shared.lock();
    let version = state.store.version();
    let objects = state.store.selected(&query.resource, &query.selector);
    drop(state);
    // The token of a page is the version of the list and the number of objects before the page.
    let (listed, offset) = match query.next.split_once('/') {
        Some((listed, offset)) => (listed.parse().unwrap_or(0), offset.parse().unwrap_or(0)),
        None => (version, 0),
    };
    if shared.lock().store.is_compacted(listed) {
        return status(410, "Expired", "the provided continue parameter is too old");
    }
    let limit = query.limit.unwrap_or(usize::MAX);
    let text = |it: &Stored| if query.metadata { metadata_of(it) } else { it.to_string() };
    let items: Vec<String> = objects.iter().skip(offset).take(limit).map(text).collect();
    let end = offset + items.len();
    let mut metadata = json!({"resourceVersion": listed.to_string()});
    if end < objects.len() {
        metadata["continue"] = json!(format!("{listed}/{end}"));
    }
    let kind = match query.resource.as_str() {
        _ if query.metadata => "PartialObjectMetadataList",
        "services" => "ServiceList",
        "nodes" => "NodeList",
        _ => "EndpointSliceList",
    };
    let items = items.join(",");
    let body =
        format!(r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#);
    let bytes = body.into_bytes();
    match fault {
        None => whole(200, bytes),
        Some(fault) => respond(200, streamed(stream::faulty(bytes, &fault))),
    }
}

fn streamed(pieces: impl futures_util::Stream<Item = Piece> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}

pub(super) fn whole(code: u16, bytes: Vec<u8>) -> Response<Body> {
    respond(code, Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync())
}

fn respond(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

pub(super) fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    whole(code, status_object(code, reason, message).to_string().into_bytes())
}

/// Decodes a query string.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
