//! Requests about one kind of objects, on one client.

use std::marker::PhantomData;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Request;
use tokio::time::timeout;

use super::backoff::random;
use super::bounds::{Excess, PAGE, REFUSAL};
use super::client::Client;
use super::failure::ApiStatus;
use super::failure::Failure;
use super::lines::{self, Lines};
use super::resource::Resource;
use super::{Connection, Options};

pub(super) struct Server<'a, R> {
    client: Client,
    options: &'a Options,
    request: Request,
    labels: Option<String>,
    fields: Option<String>,
    resource: PhantomData<R>,
}

impl<'a, R: Resource> Server<'a, R> {
    /// A new client each time reads certificates, tokens and names anew.
    pub(super) async fn connect(
        connection: &Connection,
        options: &'a Options,
    ) -> Result<Self, Failure> {
        let client = connection.client().await;
        let client = client.map_err(|error| Failure::Unreachable(anyhow::Error::new(error)))?;
        let (labels, fields) = R::selectors(&options.node);
        let request = Request::new(R::PATH);
        Ok(Self { client, options, request, labels, fields, resource: PhantomData })
    }

    /// The text of one page of a list: the first one, or the one of this token.
    pub(super) async fn page(&self, limit: u32, next: Option<&str>) -> Result<Vec<u8>, Failure> {
        let parameters = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(limit),
            continue_token: next.map(str::to_owned),
            ..ListParams::default()
        };
        let request = if R::METADATA {
            self.request.list_metadata(&parameters)
        } else {
            self.request.list(&parameters)
        };
        let request = request.map_err(|error| Failure::Lost(anyhow::Error::new(error)))?;
        let body = self.ask(request).await?;
        lines::whole(body, self.options.timing.answer, PAGE, Excess::Page).await
    }

    /// Opens a watch from a resource version on, or one that begins with what there is.
    pub(super) async fn watch(&self, from: Option<&str>) -> Result<Lines, Failure> {
        let seconds = self.options.timing.watch.mul_f64(0.9 + random() / 10.0).as_secs();
        let parameters = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: from.is_none(),
        };
        let from = from.unwrap_or_default();
        let request = if R::METADATA {
            self.request.watch_metadata(&parameters, from)
        } else {
            self.request.watch(&parameters, from)
        };
        let request = request.map_err(|error| Failure::Lost(anyhow::Error::new(error)))?;
        Ok(Lines::new(self.ask(request).await?))
    }

    /// Sends a request; returns the body of an answer of success.
    async fn ask(&self, request: hyper::Request<Vec<u8>>) -> Result<Body, Failure> {
        let patience = self.options.timing.answer;
        self.options.rate.turn().await;
        let answer = timeout(patience, self.client.http.send(request.map(Body::from))).await;
        let answer = answer
            .map_err(|_| Failure::Stalled(patience))?
            .map_err(|error| Failure::from_request(error, &self.client.url))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let code = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| Some(Duration::from_secs(value.to_str().ok()?.trim().parse().ok()?)));
        let body = lines::whole(answer.into_body(), patience, REFUSAL, Excess::Refusal).await;
        let body = body.unwrap_or_default();
        let mut status = ApiStatus::parse(&body);
        status.code = code;
        if status.message.is_empty() {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            text.trim().clone_into(&mut status.message);
        }
        Err(Failure::from_status(status, retry_after))
    }
}
